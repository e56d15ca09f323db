"""`python -m openfold_opt.predict.report DIR [--out FILE]`: write the report of a prediction."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from openfold_opt.predict.option_parser import USAGE_EXIT_CODE, OneLineParser
from openfold_opt.predict.report.writing import REPORT_FILE, write_report

PROG = "python -m openfold_opt.predict.report"
DESCRIPTION = """\
Write one page with all chains of a prediction. It opens from disk, without a network. The 3-D view
needs the package ipymolstar (pip install ipymolstar) when the page is written; without
it the page has pictures. `python -m openfold_opt.predict` writes the same page at its end.
"""


def main(argv: Sequence[str]) -> int:
    """Run the command and return the exit code of the process."""
    parser = OneLineParser(prog=PROG, description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="output directory of openfold_opt.predict"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=f"the page (default: {REPORT_FILE} in DIR); with many chains, their data are in a "
        "directory next to it",
    )
    arguments = parser.parse_args(argv)
    try:
        path = write_report(arguments.folder, out=arguments.out)
    except ValueError as error:
        print(f"{PROG}: error: {error}", file=sys.stderr)
        return USAGE_EXIT_CODE
    except OSError as error:
        print(
            f"{PROG}: error: {error.strerror}: {error.filename}; name a file that can be written "
            "with --out, or make the results readable",
            file=sys.stderr,
        )
        return USAGE_EXIT_CODE
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
