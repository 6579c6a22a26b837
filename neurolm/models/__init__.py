"""The model: tensors in, tensors out; torch and transformers only.

Axes in the shape annotations of this folder:

- ``batch``: windows (or texts) in a batch; all windows of one call have the same number of channels and seconds;
- ``tokens``: the ``channels x seconds`` EEG tokens of a window in time-major order: all channels of second 0, then all
  channels of second 1, and so on; with text after them where a docstring says so;
- ``points``: the 200 time points of one patch, in units of 100 microvolt;
- ``hidden``, ``width``: size of a token's vector in the neural tokenizer, in the language model;
- ``latent``: size of a codebook row; ``classes``: text ids and EEG codes of the merged vocabulary.
"""
