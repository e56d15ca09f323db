"""report.html: one page for all chains of an output directory, opened from disk without a network.

    python -m openfold_opt.predict.report DIR

The page has a table of the chains. For one of them it shows the structure in Mol*, the PAE map and
the plots along the chain. The viewer's JavaScript comes from the package ipymolstar (the extra
`report`); without it the page shows the pictures of the chains.
"""

from openfold_opt.predict.report.writing import write_report

__all__ = ["write_report"]
