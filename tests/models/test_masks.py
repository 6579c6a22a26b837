import torch
from hypothesis import given
from hypothesis import strategies as st

from neurolm.models.masks import (
    answer_tree_mask,
    answer_tree_positions,
    eeg_text_mask,
    eeg_text_positions,
    stair_step_mask,
)


def drawn(picture: str) -> torch.Tensor:
    return torch.tensor([[cell == "#" for cell in row.split()[0]] for row in picture.split("\n") if row.strip()])


def time_major(num_channels: int, num_seconds: int) -> torch.Tensor:
    return torch.arange(num_seconds).repeat_interleave(num_channels)


def test_stair_steps_of_two_channels_and_three_seconds() -> None:
    picture = """
        ##....
        ##....
        ####..
        ####..
        ######
        ######
    """
    assert torch.equal(stair_step_mask(time_major(2, 3)), drawn(picture))


def test_text_sees_all_eeg_and_eeg_sees_no_text() -> None:
    picture = """
        ##.....
        ##.....
        ####...
        ####...
        #####..
        ######.
        #######
    """
    assert torch.equal(eeg_text_mask(time_major(2, 2), 3), drawn(picture))
    assert eeg_text_positions(time_major(2, 2), 3).tolist() == [0, 0, 1, 1, 2, 3, 4]


def test_answers_see_the_prompt_but_not_each_other() -> None:
    picture = """
        #........
        ##.......
        ###......
        ####.....
        #####....
        ######...
        ####..#..
        ####..##.
        ####..###
    """
    assert torch.equal(answer_tree_mask(torch.tensor([0, 1]), 2, [2, 3]), drawn(picture))
    assert answer_tree_positions(torch.tensor([0, 1]), 2, [2, 3]).tolist() == [0, 1, 2, 3, 4, 5, 4, 5, 6]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 5), st.lists(st.integers(1, 4), max_size=3))
def test_mask_is_what_its_definition_says(channels: int, seconds: int, prompt: int, answers: list[int]) -> None:
    time = time_major(channels, seconds)
    kinds = [("eeg", int(second), 0) for second in time] + [("prompt", i, 0) for i in range(prompt)]
    kinds += [("answer", i, number) for number, length in enumerate(answers) for i in range(length)]

    def may_attend(row: tuple[str, int, int], column: tuple[str, int, int]) -> bool:
        if column[0] == "eeg":
            return row[0] != "eeg" or column[1] <= row[1]
        if column[0] == "prompt":
            return row[0] == "answer" or (row[0] == "prompt" and column[1] <= row[1])
        return row[0] == "answer" and row[2] == column[2] and column[1] <= row[1]

    expected = torch.tensor([[may_attend(row, column) for column in kinds] for row in kinds])
    assert torch.equal(answer_tree_mask(time, prompt, answers), expected)
