"""Explain every parameter of params.yaml: name, value, what it may be.

Example: gotorb params
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--file", default="params.yaml", help="file to read (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Print one line for each parameter."""
    from gotorb.params import Section, read_params

    def show(section: Section, prefix: str) -> None:
        for name, field in type(section).model_fields.items():
            value = getattr(section, name)
            if isinstance(value, Section):
                show(value, f"{prefix}{name}.")
            else:
                limits = ", ".join(str(item) for item in field.metadata)
                print(
                    f"{prefix}{name} = {value!r}  {field.description or ''} {f'({limits})' if limits else ''}".rstrip()
                )

    show(read_params(args.file), "")
    return 0
