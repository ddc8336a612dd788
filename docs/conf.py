"""Sphinx configuration of the documentation; `make docs` builds it."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "gotorb"
author = "The gotorb developers"
copyright = "The gotorb developers"
version = release = installed("gotorb")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "generate",
]
exclude_patterns = ["_build", "_ext"]
highlight_language = "text"  # of code blocks without a language: commands and their output
add_module_names = False
viewcode_follow_imported_members = False  # a page of source code leads back to the page of its own module
suppress_warnings = ["myst.xref_missing"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
autosummary_generate = False  # would import modules before MLflow, which they register with
numpydoc_validation_checks = set()
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
html_theme = "pydata_sphinx_theme"
html_title = "gotorb"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"]}
html_sidebars = {"index": []}
