"""Write a model as ONNX: plain scores by onnxruntime, without TensorFlow and without a posterior.

`gotorb score model.onnx SOURCE --out scores.csv` uses the file. It is tried before it is kept: its scores are the
model's. Needs what `pip install 'gotorb[onnx]'` brings; scoring needs onnxruntime alone.

Examples:
  gotorb export models/bayesian_vgg6 --out model.onnx
  gotorb export models:/gotorb@champion --out champion.onnx
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", help="models:/NAME@ALIAS, models:/NAME/VERSION, a model's folder or model.h5")
    parser.add_argument("--out", required=True, help="file to write, *.onnx")


def run(args: argparse.Namespace) -> int:
    """Export and say what."""
    from gotorb import classifier
    from gotorb.core.files import file_digest

    path = classifier.export(args.model, args.out)
    print(f"{path}: sha256:{file_digest(path)}")
    return 0
