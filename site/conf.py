"""How Sphinx shows what `site/build.py` gathers: MyST-NB, the book theme, a packaged MathJax."""

from importlib.metadata import distribution

MATHJAX = "sphinx-mathjax-offline/static/mathjax/tex-svg-full.js"  # one file, fonts and all

project = html_title = "minigen"
release = distribution("minigen").version
copyright = "the authors of minigen, MIT licence"
suppress_warnings = ["misc.highlighting_failure"]  # Python with a shell's lines in it

extensions = ["myst_nb", "sphinx.ext.mathjax"]
nb_execution_mode = "off"  # the stored outputs are what the tests have compared
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
mathjax_path = "tex-svg-full.js"
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

html_theme = "sphinx_book_theme"
html_static_path = ["_static", str(distribution("sphinx-mathjax-offline").locate_file(MATHJAX))]
html_css_files = ["site.css"]
html_js_files = ["control.js"]
html_copy_source = False
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is
html_theme_options = {
    "navbar_persistent": [],  # the search stands in the sidebar
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "home_page_in_toc": True,
}
