"""Commands for alert packets and streams."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gotorb.cli.options import MODEL, add_json, add_options, archive_of, call, chosen, say_next, show
from gotorb.core.logs import show_on_console
from gotorb.core.params import AlertsParams, StreamParams
from gotorb.core.settings import read_settings
from gotorb.errors import ConfigError, StreamError

if TYPE_CHECKING:
    from gotorb.streams.decoder import Pipeline
    from gotorb.streams.journal import Journal

ACTIONS = ("status", "export", "retry", "replay")
ALERT_ACTIONS = ("show", "dataset")


def _stream_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "gotorb stream MODEL TOPIC... --out DIR [options]\n"
        "       gotorb stream status DIR [--json]\n"
        "       gotorb stream export DIR --to FILE [--every-column]\n"
        "       gotorb stream retry DIR --model MODEL\n"
        "       gotorb stream replay PACKETS --model MODEL --out DIR"
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="MODEL TOPIC",
        help=f"model ({MODEL}) and topics; or an action ({', '.join(ACTIONS)}) and a folder",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the journal; the same call resumes there")
    parser.add_argument("--from", dest="start", default=argparse.SUPPRESS, metavar="START",
                        help=f"{StreamParams.model_fields['start'].description} (default: committed)")  # fmt: skip
    add_options(parser, StreamParams, StreamParams, skip=("start",))
    parser.add_argument(
        "--check",
        action="store_true",
        help="try brokers, topics, schemas and model on the newest alerts; write and commit nothing",
    )
    parser.add_argument("--to", type=Path, metavar="FILE", help="csv or parquet of an export")
    parser.add_argument(
        "--every-column",
        action="store_true",
        help="export place, times, object and survey score too, and alerts without cut-outs",
    )
    parser.add_argument("--model", metavar="MODEL", help="model of `retry` and `replay`")
    parser.add_argument("--params", metavar="FILE", help="params.yaml whose label.archive describes the packets")
    add_json(parser)


def run_stream(args: argparse.Namespace) -> int:
    """Score alert streams from Kafka, each alert once, and keep the scores in a folder.

    Brokers, group and account stand in .env (GOTORB_KAFKA_*), nowhere else; see docs/streams.md. The folder holds one
    journal (stream.db): scores, dead letters with their bytes, gaps and offsets, a batch in one transaction. Any end,
    even a power cut, resumes with the same call: nothing is lost and nothing is scored twice. SIGTERM finishes the
    batch and leaves the group.

    The csv or parquet of `export` has the columns of `gotorb score`. `retry` reads dead letters again, for instance
    with a schema that came later. `replay` scores packets of a folder as the stream would have.

    Exit codes: 0 done; 1 an error; 2 the brokers refuse the account; 3 most packets cannot be read (schema?);
    4 with --strict, alerts had expired at the broker before they were read.

    Examples:
      gotorb stream vgg6.onnx ztf_20260327_programid1 --out night --check
      gotorb stream vgg6.onnx ztf_20260327_programid1 --out night --workers 2
      gotorb stream models:/gotorb@champion lsst-alerts --out rubin --from earliest --publish scores --above 0.9
      gotorb stream status night
      gotorb stream export night --to scores.csv
    """
    action, *rest = args.words
    if action in ACTIONS:
        if len(rest) != 1:
            raise ConfigError(f"`gotorb stream {action}` takes one folder, not {len(rest)}")
        return {"status": _status, "export": _export, "retry": _retry, "replay": _replay}[action](args, Path(rest[0]))
    if not rest:
        raise ConfigError(f"no topic after the model {action}; give one, or one of {', '.join(ACTIONS)} and a folder")
    return _run(args, action, rest)


def _run(args: argparse.Namespace, model: str, topics: list[str]) -> int:
    from gotorb.streams.run import check_stream, run_stream

    show_on_console()
    options, archive = call(args, StreamParams), archive_of(args)
    try:
        if args.check:
            print("\n".join(check_stream(model, topics, options, archive)))
            return 0
        if args.out is None:
            raise ConfigError("no folder for the scores; pass --out DIR")
        code = run_stream(model, topics, args.out, options, archive)
    except StreamError as error:
        if args.debug:
            raise
        print(f"gotorb: {error}", file=sys.stderr)
        return error.code
    say_next(f"gotorb stream export {args.out} --to scores.csv")
    return code


def _status(args: argparse.Namespace, folder: Path) -> int:
    """Print the state of a folder; 1 when its counts do not add up."""
    from gotorb.streams.status import read_status

    found = read_status(folder)
    show(args, found, _describe(found))
    return 0 if found["balanced"] else 1


def _describe(found: Mapping[str, Any]) -> list[str]:
    names = ("consumed", "scored", "bare", "dead", "duplicates", "gaps")
    heads = ("partition", "consumed", "scored", "no cut-outs", "dead", "duplicates", "gaps", "next offset")
    rows = [(f"{one['topic']}-{one['part']}", *(one[name] for name in names), one["next"])
            for one in found["partitions"]]  # fmt: skip
    rows.append(("all", *(found["totals"][name] for name in names), ""))
    width = max(len(str(row[0])) for row in [heads, *rows])
    lines = ["  ".join([f"{row[0]:<{width}}", *(f"{value:>11}" for value in row[1:])]) for row in [heads, *rows]]
    lines += [f"dead, {kind}: {n}" for kind, n in found["dead"].items()]
    lines += [f"  {reason}" for reason in found["dead_reasons"]]
    lines += [f"not read, {reason}: {n}" for reason, n in found["gaps"].items()]
    lines += [f"not published yet: {found['unpublished']}"] if found["unpublished"] else []
    live = found["live"]
    if live:
        latency = ", ".join(f"{name} {value:g} s" for name, value in live["latency_s"].items())
        lines.append(f"state: {live['state']}, lag {sum(live['lag'].values())}, {live['rate']:g}/s, latency {latency}")
        lines += [
            f"{one['name']}: {one['verdict']} against the training set (median {one['median_now']:g}, there "
            f"{one['median_before']:g})" for one in live["drift"]
        ]  # fmt: skip
        lines += [f"{partition} waits: {reason}" for partition, reason in live["waiting"].items()]
    lines.append("the counts add up" if found["balanced"] else "THE COUNTS DO NOT ADD UP; keep the folder for a report")
    return lines


def _export(args: argparse.Namespace, folder: Path) -> int:
    from gotorb.streams.folder import export
    from gotorb.streams.journal import open_existing

    if args.to is None:
        raise ConfigError("no file for the export; pass --to scores.csv or --to scores.parquet")
    journal = open_existing(folder)
    print(f"{args.to}: {export(journal, args.to, every_column=args.every_column)} rows")
    return 0


def _retry(args: argparse.Namespace, folder: Path) -> int:
    from gotorb.streams.folder import retry_dead
    from gotorb.streams.journal import open_existing

    open_existing(folder).close()
    journal, pipeline, _ = _open(args, folder)
    print(_told(retry_dead(journal, pipeline)))
    return 0


def _replay(args: argparse.Namespace, folder: Path) -> int:
    from gotorb.streams.folder import find_kept, replay

    if args.out is None:
        raise ConfigError("no folder for the scores; pass --out DIR")
    journal, pipeline, options = _open(args, args.out)
    journal.note(packets=os.path.relpath(folder, args.out))
    print(_told(replay(journal, pipeline, find_kept(folder), batch=options.batch)))
    return 0


def _open(args: argparse.Namespace, folder: Path) -> "tuple[Journal, Pipeline, StreamParams]":
    """Journal of a folder, and the way to rows by the model that it belongs to."""
    from gotorb.streams.consumer import load_model, make_pipeline, open_journal

    if args.model is None:
        raise ConfigError("no model; pass --model MODEL")
    show_on_console()
    options, model = call(args, StreamParams), load_model(args.model)
    pipeline = make_pipeline(model.scorer, options, read_settings(), archive_of(args))
    return open_journal(folder, model, pipeline), pipeline, options


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items())) or "nothing to do"


def _alerts_options(parser: argparse.ArgumentParser) -> None:
    from gotorb import import_data

    parser.usage = (
        "gotorb alerts show FILE... [--json]\n"
        "       gotorb alerts dataset SOURCE... [--labels RULE...] [--n-synthetic N] [--out-dir DIR] [--name NAME]"
    )
    parser.add_argument("action", choices=ALERT_ACTIONS, help="describe packets, or make a data set of them")
    parser.add_argument("paths", nargs="+", metavar="SOURCE", help="packets, folders of packets, folder of a stream")
    add_options(parser, AlertsParams, AlertsParams)
    add_options(parser, import_data.import_alerts, skip=("paths", "alerts", "archive"))
    parser.add_argument("--params", metavar="FILE", help="params.yaml whose label.archive describes the packets")
    add_json(parser)


def run_alerts(args: argparse.Namespace) -> int:
    """Describe alert packets, or make a labelled data set of them.

    Labels do not copy the survey's own score. Real are known asteroids (asteroid) and, for Rubin, sources of known flux
    pasted with the packet's own PSF and variance on alerts that match nothing (synthetic). Bogus needs evidence: flags
    of cosmic rays, saturation, edges, bad pixels and glints (flags), a dipole on a bright static source (dipole), an
    object never seen again although its field was (vanished). The rest stays unlabelled for `gotorb eyeball`.

    The folder of a stream is read as far as it kept its packets (`gotorb stream --keep-packets`).

    Examples:
      gotorb alerts show 3527242430321524769.bin
      gotorb alerts dataset packets/ --out-dir data --name rubin
      gotorb alerts dataset night --labels asteroid flags --out-dir data
      gotorb data card data/rubin
    """
    from gotorb.classifier.sources import STREAM, find_kind, find_streamed
    from gotorb.import_data import import_alerts

    paths: list[Path] = []
    for path in map(Path, args.paths):
        if not path.exists():
            raise ConfigError(f"no {path}; give alert packets, a folder of them, or the folder of a stream")
        kept = find_streamed(path) if find_kind(path)[0] == STREAM else None
        if kept and len(kept) > 1:
            raise ConfigError(f"{path} has alerts of {', '.join(kept)}; give the packets of one survey")
        paths += [path] if kept is None else [file for _, files in kept.values() for file in files]
    show_on_console()
    alerts = AlertsParams(**chosen(args, AlertsParams))
    if args.action == "show":
        _show_alerts(args, paths, alerts)
        return 0
    places = {name: value for name, value in chosen(args, import_alerts).items() if name != "paths"}
    data_dir = import_alerts(paths, alerts, archive_of(args), **places)
    print(data_dir)
    say_next(f"gotorb data card {data_dir}, then gotorb eyeball {data_dir}")
    return 0


def _show_alerts(args: argparse.Namespace, paths: list[Path], alerts: AlertsParams) -> None:
    import pandas as pd

    from gotorb.evaluation.metrics import rounded
    from gotorb.labels.alerts import describe_alert, label_alerts
    from gotorb.survey.alerts import find_packets, make_reader
    from gotorb.survey.alerts.content import has_cutouts, read_alert, read_measurements

    reader = make_reader(archive_of(args).packets, alerts.size)
    found = []
    for path in (file for one in paths for file in find_packets(one)):
        for record in reader.read_records(path):
            alert = read_alert(record, str(path), reader.families, reader.size) if has_cutouts(record) else None
            ours = alert.record if alert else read_measurements(record, str(path), reader.families)
            rows = label_alerts(pd.DataFrame([ours]), alerts)
            found.append({"file": str(path), "survey": ours["survey"]} | describe_alert(record, alert, rows))
    if args.json:
        print(json.dumps(rounded(found), indent=2))
    for one in () if args.json else found:
        print("\n".join(f"{name:<13}{_plain(value)}" for name, value in one.items()), end="\n\n")


def _plain(value: Any) -> str:
    """A value for the terminal."""
    if isinstance(value, dict):
        return ", ".join(f"{n} {name}" for name, n in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value in ("", None) or value != value else f"{value:.7g}" if isinstance(value, float) else str(value)
