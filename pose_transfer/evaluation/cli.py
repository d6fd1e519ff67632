# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pose_transfer.evaluation`: the demo's benchmark, a folder of pictures, retrieval."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..detectors import FaceEncoder
from .folder import Instruments, evaluate_folder, parse_size
from .folder_report import results_table, write_folder_report
from .frechet import load_inception
from .pairing import Matched, match_by_name, match_by_table
from .perceptual import load_perceptual_distance

DEMO = "demo"
"""Stands for the models that come with the pack, where a file or folder is asked for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status: 0 if all is well."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["demo"]:  # it has a parser of its own, and needs all of the demo's models
        from .benchmark import main as measure_demo

        measure_demo(given[1:])
        return 0
    if given[:1] == ["one-shot"]:
        from .one_shot_cli import main as measure_one_shot

        return measure_one_shot(given[1:])
    if given[:1] == ["truepose"]:
        from .truepose_cli import main as measure_truepose

        return measure_truepose(given[1:])
    asked = _parser().parse_args(given)
    try:
        return _folder(asked) if asked.command == "folder" else _retrieval(asked)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pose_transfer.evaluation", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="measure the demo models and write docs/benchmark.md")
    commands.add_parser("one-shot", help="measure OnePoseTrans's parts in a ComfyUI")
    commands.add_parser("truepose", help="measure TruePose's parts; writes docs/truepose.md")
    folder = commands.add_parser("folder", help="generated pictures against the true ones")
    add = folder.add_argument
    add("generated", type=Path, metavar="GENERATED", help="folder of generated pictures")
    add("truth", type=Path, metavar="TRUTH", help="folder of true pictures, of the same names")
    add("--source", type=Path, metavar="DIR", help="folder of the source pictures")
    add("--pairs", type=Path, metavar="CSV", help="columns generated, truth[, source]")
    add("--out", type=Path, metavar="DIR", help="folder for report, tables and plots")
    add("--size", metavar="HxW", help="resize all pictures to this first, e.g. 512x352")
    add("--lpips-weights", type=Path, metavar="FILE", help="AlexNet of torchvision; else no LPIPS")
    add("--fid-weights", type=Path, metavar="FILE", help="Inception v3; without it no FID")
    add("--train-reference", type=Path, metavar="DIR", help="training pictures, for a second FID")
    add("--faces", metavar="PACK", help="folder of an insightface pack, or 'demo'")
    add("--poses", type=Path, metavar="DIR", help="true keypoints with hands, NAME.json")
    add("--generated-poses", type=Path, metavar="DIR", help="those found in the generated")
    onnx = ("FINDER", "POSE")
    add("--dwpose", type=Path, nargs=2, metavar=onnx, help="DWPose's ONNX files, to find keypoints")
    add("--worst", type=int, default=8, metavar="N", help="pairs on the sheets of the worst")
    _common(folder)
    retrieval = commands.add_parser("retrieval", help="R@k and mean rank of FPDM's stage 1")
    add = retrieval.add_argument
    add("checkpoint", metavar="FPDM", help="FPDM file, or 'demo'")
    add("folder", type=Path, metavar="FOLDER", help="holds pairs.csv: source, target[, pose]")
    add("--images", type=Path, metavar="DIR", help="where the table's paths begin, if not FOLDER")
    add("--stage-1", type=Path, metavar="FILE", help="take the fusion model from this file")
    add("--out", type=Path, metavar="DIR", help="folder for the scores as Markdown, CSV, JSON")
    _common(retrieval)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=int, default=16, help="pictures at once in networks")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")


def _folder(asked: argparse.Namespace) -> int:
    matched = (
        match_by_name(asked.generated, asked.truth, asked.source)
        if asked.pairs is None
        else match_by_table(asked.pairs, asked.generated, asked.truth, asked.source)
    )
    for remark in matched.remarks():
        print(remark, file=sys.stderr)
    result = evaluate_folder(
        matched,
        _instruments(asked, matched),
        size=None if asked.size is None else parse_size(asked.size),
        batch_size=asked.batch_size,
    )
    print(results_table(result))
    if asked.out is not None:
        paths = write_folder_report(result, asked.out, asked.worst)
        print("\nWritten: " + ", ".join(str(path) for path in paths))
    return 0


def _instruments(asked: argparse.Namespace, matched: Matched) -> Instruments:
    if asked.train_reference is not None and asked.fid_weights is None:
        raise ValueError("--train-reference is for FID: name the weights with --fid-weights too.")
    if asked.generated_poses is not None and asked.poses is None and asked.dwpose is None:
        raise ValueError("--generated-poses needs the true keypoints: give --poses or --dwpose.")
    inception = perceptual = truth_pose = generated_pose = None
    if asked.fid_weights is not None:
        inception = load_inception(asked.fid_weights).to(asked.device)
    if asked.lpips_weights is not None:
        perceptual = load_perceptual_distance(asked.lpips_weights).to(asked.device)
    if asked.poses or asked.dwpose:
        from .posing import poses_of_detector, poses_of_files

        if asked.dwpose:
            from ..detectors.dwpose import load_dwpose

            truth_pose = generated_pose = poses_of_detector(load_dwpose(*asked.dwpose))
        if asked.poses:
            truth_pose = poses_of_files(asked.poses, matched.pairs)
        if asked.generated_poses:
            generated_pose = poses_of_files(asked.generated_poses, matched.pairs)
    return Instruments(
        inception,
        perceptual,
        None if asked.faces is None else _face_encoder(asked.faces),
        truth_pose,
        generated_pose,
        asked.train_reference,
    )


def _face_encoder(name: str) -> FaceEncoder:
    if name == DEMO:
        from ..detectors.demo import load_demo_face_encoder

        return load_demo_face_encoder()
    from ..detectors.face import load_insightface

    return load_insightface(name)


def _retrieval(asked: argparse.Namespace) -> int:
    from ..demo.models import load_fpdm
    from ..fpdm import load_checkpoint
    from .folder_retrieval import evaluate_retrieval, read_queries
    from .retrieval_report import markdown, write_retrieval_report

    if asked.out is not None and asked.out.is_file():  # said before minutes of work, not after
        raise ValueError(f"--out {asked.out} is a file, expected a folder for the report.")
    queries = read_queries(asked.folder, asked.images)
    if asked.checkpoint == DEMO:
        fpdm = load_fpdm()
    else:
        fpdm = load_checkpoint(asked.checkpoint, asked.stage_1)
    scores = evaluate_retrieval(fpdm.to(asked.device), queries, asked.device, asked.batch_size)
    print(markdown(scores))
    if asked.out is not None:
        paths = write_retrieval_report(scores, asked.out)
        print("\nWritten: " + ", ".join(str(path) for path in paths))
    return 0
