"""Write pages that show what a model makes of images: one self-contained html for each, an index, csv and json.

Each detection is shown with score, posterior, old scores, all layers, single exposures, what is known of it and what
strikes the eye (edge, bright star, dipole, cosmic ray, minor planet, galaxy). Pages sort and filter by themselves and
fetch nothing.

Minor planets are named when GOTORB_MPC_CATALOGUE is set, galaxies when CATSHTM_DIR is (.env).

Examples:
  gotorb visualise night/r0000001_UT1-median.fits --model models:/gotorb@champion --out pages
  gotorb visualise night/ --model models/bayesian_vgg6 --neighbours data/dataset --saliency --out pages
  gotorb visualise archive/ztf_stamps.h5 --model models:/gotorb-ztf@champion --out pages
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", nargs="+", help="images, folders of images, data sets, stamp archives, alert packets")
    parser.add_argument("--model", required=True, help="models:/NAME@ALIAS, a model's folder, model.h5, or model.onnx")
    parser.add_argument("--out", required=True, help="folder for the pages")
    parser.add_argument("--samples", type=int, default=20, help="posterior samples, 0 for none (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: %(default)s)")
    parser.add_argument("--threshold", type=float, help="a detection is called real from here on")
    parser.add_argument("--neighbours", metavar="DIR", help="labelled data set whose nearest rows are shown")
    parser.add_argument("--saliency", action="store_true", help="add a map of where the network looks (Grad-CAM)")
    parser.add_argument("--eyeball", default="", metavar="URL", help="ids lead to this eyeball, http://127.0.0.1:8650")
    parser.add_argument("--params", help="params.yaml whose label.archive tells how to read an archive")


def run(args: argparse.Namespace) -> int:
    """Write the pages and name the index."""
    from gotorb import visualise
    from gotorb.logs import show_on_console
    from gotorb.params import find_params

    show_on_console()
    archive = find_params(args.params).label.archive
    look = visualise.Look(
        args.samples, args.seed, args.threshold, args.neighbours, args.saliency, archive, args.eyeball
    )
    pages = visualise.make_pages(args.source, args.model, args.out, look)
    print(pages[-1])
    return 0
