"""The `neurolm` command: data in, training, answers, scores and reports, published weights."""

import argparse
import json
import sys
import time
from pathlib import Path

from neurolm.config import UserError, load, parse_overrides
from neurolm.training.stopping import EXIT_CODE, Stopped


def main(arguments: list[str] | None = None) -> None:
    """Run a command; a user's mistake is one clear message and exit code 2."""
    parser = argparse.ArgumentParser(prog="neurolm", description="EEG as a foreign language: train, check, predict.")
    commands = parser.add_subparsers(dest="command", required=True)

    download = commands.add_parser("download", help="fetch an open data set, or say where to apply for another")
    download.add_argument(
        "name", help="workload, eegmmidb, hmc or siena; tuab, tuev, tusl, tueg and seed on application"
    )
    download.add_argument("folder", type=Path, help="where its files go, as they are published")
    download.add_argument("--subjects", type=int, metavar="N", help="only the first N subjects")
    download.add_argument("--connections", type=int, default=4, metavar="N", help="files at a time (default 4)")
    download.add_argument(
        "--base-url", metavar="URL", help="a mirror instead of https://physionet.org/files; also NEUROLM_PHYSIONET_URL"
    )

    check = commands.add_parser("check", help="validate a config, its recordings and stores, and run one real batch")
    train = commands.add_parser("train", help="train any stage in this process, without Ray")
    tokenize = commands.add_parser("tokenize", help="write the EEG tokens of a store in this process, without Ray")
    probe = commands.add_parser("probe", help="what a linear model reads from a trained tokenizer's features")
    probe.add_argument("--json", action="store_true", help="print one JSON object")
    baseline = commands.add_parser("baseline", help="other systems on the same data and splits, in this process")
    baseline.add_argument("--json", action="store_true", help="print one JSON object")
    for command in (check, train, tokenize, probe, baseline):
        command.add_argument("config", type=Path, help="YAML file, for example ray_jobs/configs/demo/tokenizer.yaml")
        command.add_argument("overrides", nargs="*", metavar="dotted.name=value", help="settings to replace")

    inspect = commands.add_parser("inspect", help="what a store holds, what was left out and why")
    inspect.add_argument("store", type=Path, help="folder of a finished store, for example runs/demo/store")
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.add_argument("--page", type=Path, metavar="FILE.html", help="also write a page with spectra and quality")

    status = commands.add_parser("status", help="how runs are doing, from another shell")
    status.add_argument("run", type=Path, nargs="+", help="folder of a run, of a sweep, or out with several runs")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.add_argument("--follow", action="store_true", help="look again every 5 s until every run has ended")

    track = commands.add_parser("track", help="send to MLflow what it has not got of runs that have ended")
    track.add_argument("run", type=Path, nargs="+", help="folder of a run, of a sweep, or out with several runs")

    plan = commands.add_parser("plan", help="memory, time and cost of a stage's config before it runs")
    plan.add_argument("config", type=Path, help="YAML file, for example ray_jobs/configs/xl/pretrain.yaml")
    plan.add_argument("overrides", nargs="*", metavar="dotted.name=value", help="settings to replace")
    plan.add_argument("--gpus", type=int, required=True, metavar="N", help="workers, one GPU each, on one node")
    plan.add_argument("--gpu-memory-gb", type=float, required=True, metavar="M", help="memory of a GPU in 10^9 bytes")
    plan.add_argument("--price-per-gpu-hour", type=float, metavar="P", help="in any currency")
    plan.add_argument("--gpu", default="a100", metavar="NAME", help="whose peak: a100 (default), h100, h200, l40s, l4")
    plan.add_argument("--tflops", type=float, metavar="T", help="the peak itself, in 10^12 operations a second")
    plan.add_argument(
        "--mfu", type=float, default=0.3, metavar="SHARE", help="share of the peak (default 0.3, a guess)"
    )
    plan.add_argument("--windows", type=int, metavar="N", help="training windows, where there is no store yet")
    plan.add_argument("--shape", metavar="CxS,...", help="channels x seconds of windows, where there is no store yet")
    plan.add_argument(
        "--states",
        choices=("float32", "mixed", "bfloat16"),
        default=None,
        help="plan other states than the config's: all in fp32, bf16 with fp32 optimizer, or all in bf16",
    )
    plan.add_argument("--json", action="store_true", help="print one JSON object")

    predict = commands.add_parser("predict", help="ask a model a question about a recording")
    predict.add_argument("model", type=Path, help="model folder of a tuned NeuroLM")
    predict.add_argument("recording", type=Path, help="any recording that MNE reads")
    predict.add_argument("--task", help="which of the model's tasks to ask; the only one if there is one")
    predict.add_argument("--question", metavar="TEXT", help="ask this in place of the task's question")
    predict.add_argument("--options", nargs="+", metavar="ANSWER", help="answers to --question in place of the task's")
    predict.add_argument("--lettered", action="store_true", help="list the --options as (A), (B), ...")
    predict.add_argument(
        "--option-orders", type=int, default=1, metavar="N", help="average over N orders of a lettered task's options"
    )
    predict.add_argument("--json", action="store_true", help="print one JSON object")

    report = commands.add_parser("report", help="write a sweep's report again, also while it runs")
    report.add_argument("sweep", type=Path, help="folder of results, or the folder tune in it")

    rescore = commands.add_parser("rescore", help="score saved answers again, without a model or an opening")
    rescore.add_argument("out", type=Path, help="folder of results")
    rescore.add_argument("--json", action="store_true", help="print one JSON object")

    compare = commands.add_parser("compare", help="two evaluated runs on the same windows, paired by subject")
    compare.add_argument("out_a", type=Path, help="folder of results")
    compare.add_argument("out_b", type=Path, help="another; differences are B minus A")
    compare.add_argument("--json", action="store_true", help="print one JSON object")

    results = commands.add_parser("results", help="results beside the paper's; of several seeds the mean and sd")
    results.add_argument(
        "outs", type=Path, nargs="+", metavar="OUT", help="folders of results, one a seed; or a cross-validation's"
    )
    results.add_argument("--json", action="store_true", help="print one JSON object")
    results.add_argument("--out", type=Path, metavar="FILE", help="also write a results.json of all seeds together")

    importing = commands.add_parser("import-official", help="make a model folder of a published checkpoint")
    importing.add_argument("file", type=Path, help="VQ.pt or NeuroLM-{B,L,XL}.pt")
    importing.add_argument("--out", type=Path, required=True, help="model folder to write")
    importing.add_argument(
        "--tokenizer", type=Path, help="VQ.pt or tokenizer folder with the codebook of a NeuroLM-*.pt"
    )
    importing.add_argument(
        "--set", nargs="+", default=[], dest="overrides", metavar="name=value", help="settings, e.g. compat_pad_to=276"
    )

    export = commands.add_parser("export", help="write a model folder as a published checkpoint")
    export.add_argument("model", type=Path, help="model folder of a tokenizer or a NeuroLM")
    export.add_argument("--official", type=Path, required=True, metavar="FILE", help="file to write, e.g. VQ.pt")

    checkpoint = commands.add_parser("export-checkpoint", help="make a model folder of a run's checkpoint")
    checkpoint.add_argument("checkpoint", type=Path, help="a folder step-* of runs/demo/checkpoints/pretrain")
    checkpoint.add_argument("--out", type=Path, required=True, help="model folder to write")

    options, others = parser.parse_known_args(arguments)
    if others and (not hasattr(options, "overrides") or any(one.startswith("-") or "=" not in one for one in others)):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if others:  # argparse takes no overrides after an option
        options.overrides = [*options.overrides, *others]
    try:
        COMMANDS[options.command](options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(EXIT_CODE)


def _download(options: argparse.Namespace) -> None:
    from neurolm.datasets.download import download
    from neurolm.datasets.sources import open_set

    source = open_set(options.name)
    try:
        done = download(
            source,
            options.folder,
            base_url=options.base_url,
            num_subjects=options.subjects,
            connections=options.connections,
        )
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        sys.exit(130)
    print(
        f"{source.title} {source.version}: {done.fetched} files fetched, {done.replaced} replaced, "
        f"{done.present} already there, {done.num_bytes / 1e6:.1f} MB; every SHA-256 is the published one"
    )
    print(f"licence {source.licence}; how to cite it: {source.page}")
    print(f"use it: {source.use.format(folder=options.folder)}")


def _check(options: argparse.Namespace) -> None:
    try:
        from neurolm.distributed.check import check
    except ImportError as error:
        raise UserError(f"neurolm check needs Ray and Optuna ({error}); install neurolm[cluster]") from error

    for line in check(options.config, parse_overrides(options.overrides)):
        print(line, flush=True)


def _train(options: argparse.Namespace) -> None:
    from neurolm.training.runs import load_run
    from neurolm.training.worker import train_locally

    overrides = {"workers": 1, "engine": {"kind": "torch"}} | parse_overrides(options.overrides)
    run = load_run(options.config, overrides)
    metrics = train_locally(run)
    print(f"{run.folder / 'model'}")
    print("  ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    for alarm in run.alarms(metrics):
        print(f"ALARM  {alarm}")


def _tokenize(options: argparse.Namespace) -> None:
    from neurolm.training.token_job import TokenizeRun, describe_tokens, encode_locally, tokenize

    run = load(TokenizeRun, options.config, parse_overrides(options.overrides))
    for folder, manifest in tokenize(run, encode_locally).items():
        print(f"{folder}: {describe_tokens(manifest)}")


def _probe(options: argparse.Namespace) -> None:
    from neurolm.baselines.linear_probe import ProbeRun, probe, table

    run = load(ProbeRun, options.config, parse_overrides(options.overrides))
    results = probe(run)
    plain = {name: result.as_dict() for name, result in results.items()}
    print(json.dumps(plain) if options.json else table(run, results))


def _baseline(options: argparse.Namespace) -> None:
    from neurolm.baselines.settings import BaselineRun
    from neurolm.reports.baselines import run_baselines

    run = load(BaselineRun, options.config, parse_overrides(options.overrides))
    table = run_baselines(run, say=lambda line: print(line, file=sys.stderr, flush=True))
    print(json.dumps(table.as_dict()) if options.json else table.markdown())


def _inspect(options: argparse.Namespace) -> None:
    from neurolm.reports.inspection import inspect_store, inspection_table

    found = inspect_store(options.store)
    print(json.dumps(found) if options.json else inspection_table(found))
    if options.page is not None:
        from neurolm.reports.store_page import write_store_page

        write_store_page(options.page, options.store, found)
        if not options.json:
            print(f"\n{options.page}")


def _status(options: argparse.Namespace) -> None:
    from neurolm.reports.run_status import as_json, run_folders, run_status, status_lines

    while True:
        statuses = [run_status(folder) for place in options.run for folder in run_folders(place)]
        print(as_json(statuses) if options.json else "\n".join(line for one in statuses for line in status_lines(one)))
        if not options.follow or all(one.state in ("finished", "failed", "stopped") for one in statuses):
            return
        time.sleep(5)
        if not options.json:
            print()


def _track(options: argparse.Namespace) -> None:
    from neurolm.reports.run_status import run_folders
    from neurolm.tracking.delivery import deliver_folder

    for place in options.run:
        for folder in run_folders(place):
            print(f"{folder}: {deliver_folder(folder)} lines sent")


def _plan(options: argparse.Namespace) -> None:
    from neurolm.planning.plan import make_plan
    from neurolm.planning.table import as_dict, table

    plan = make_plan(
        options.config,
        parse_overrides(options.overrides),
        num_gpus=options.gpus,
        gpu_memory_gb=options.gpu_memory_gb,
        price_per_gpu_hour=options.price_per_gpu_hour,
        mfu=options.mfu,
        gpu=options.gpu,
        tflops=options.tflops,
        num_windows=options.windows,
        shapes=options.shape,
        states=options.states,
    )
    print(json.dumps(as_dict(plan)) if options.json else table(plan))


def _predict(options: argparse.Namespace) -> None:
    from neurolm.inference import FreeQuestion, predict_recording

    question = None
    if options.question is not None:
        question = FreeQuestion(options.question, tuple(options.options or ()), options.lettered)
    elif options.options or options.lettered:
        raise UserError("--options and --lettered are of a question of your own; say it with --question")
    answer = predict_recording(
        options.model, options.recording, options.task, question=question, option_orders=options.option_orders
    )
    print(json.dumps(answer.as_dict()) if options.json else answer.table())


def _report(options: argparse.Namespace) -> None:
    from neurolm.reports.closing import has_finished_sweep, write_sweep_report

    out = options.sweep.parent if options.sweep.name == "tune" else options.sweep
    record = None
    if not has_finished_sweep(out):
        try:
            from neurolm.distributed.sweep_summary import read_sweep
        except ImportError as error:
            raise UserError(
                f"a sweep that has not ended is read with Optuna ({error}); install neurolm[cluster]"
            ) from error
        record = read_sweep(out / "tune")
    path = write_sweep_report(out, record)
    assert path is not None, "a sweep was read"
    print("\n".join(str(path.with_suffix(kind)) for kind in (".html", ".md", ".json")))


def _rescore(options: argparse.Namespace) -> None:
    from neurolm.reports.rescore import rescore

    rescored = rescore(options.out)
    print(json.dumps(rescored.as_dict()) if options.json else rescored.table())


def _compare(options: argparse.Namespace) -> None:
    from neurolm.reports.compare import compare_runs

    comparison = compare_runs(options.out_a, options.out_b)
    print(json.dumps(comparison.as_dict()) if options.json else comparison.table())


def _results(options: argparse.Namespace) -> None:
    from neurolm.reports.cross_validation import read_seeds
    from neurolm.reports.paper import beside_paper, paper_table
    from neurolm.reports.results import save_results
    from neurolm.reports.seeds import over_seeds

    runs = [run for out in options.outs for run in read_seeds(out)]
    results = over_seeds(runs) if len(runs) > 1 else runs[0].results
    if options.out is not None:
        save_results(options.out, results)
    said = {"results": results, "beside_paper": beside_paper(results)}
    print(json.dumps(said) if options.json else paper_table(results))


def _import_official(options: argparse.Namespace) -> None:
    from neurolm.training.official_files import import_official

    for note in import_official(options.file, options.out, options.tokenizer, parse_overrides(options.overrides)):
        print(note)
    print(options.out)


def _export(options: argparse.Namespace) -> None:
    from neurolm.training.official_files import export_official

    for note in export_official(options.model, options.official):
        print(note)
    print(options.official)


def _export_checkpoint(options: argparse.Namespace) -> None:
    from neurolm.training.model_export import export_checkpoint

    export_checkpoint(options.checkpoint, options.out)
    print(options.out)


COMMANDS = {
    "download": _download,
    "check": _check,
    "train": _train,
    "tokenize": _tokenize,
    "probe": _probe,
    "baseline": _baseline,
    "inspect": _inspect,
    "status": _status,
    "track": _track,
    "plan": _plan,
    "predict": _predict,
    "report": _report,
    "rescore": _rescore,
    "compare": _compare,
    "results": _results,
    "import-official": _import_official,
    "export": _export,
    "export-checkpoint": _export_checkpoint,
}
