# Two commands do everything, set-up included: `make demo` and `make test`.
# On machines where PyPI's torch would bring CUDA along, torch comes from its own CPU index (see .ci/setup).

.PHONY: demo test check weights fuzz wheel wheel-test docs

# Idle OpenMP threads that spin make busy cores many times slower; tests run one process a core.
export OMP_WAIT_POLICY = passive

demo:
	@.ci/setup demo
	@.venv/bin/rtvc convert examples/source.flac -r examples/reference.flac -o demo.wav

check:
	@.ci/setup test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

test: check
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered --cov-fail-under=90

# dist/rtvc_engine-VERSION-py3-none-any.whl, and the sdist that it was built from.
wheel:
	@.ci/setup test
	rm -rf dist build
	.venv/bin/python -m build --outdir dist .

# Installs the wheel into an empty environment of every Python in reach and uses it as a stranger would: minutes each, since torch is
# installed anew (downloads are shared through pip's cache). PYTHONS='3.12 3.13' chooses.
wheel-test: wheel
	RTVC_WHEEL=$$(echo $(CURDIR)/dist/*.whl) .venv/bin/python -m pytest -x -s tests/test_wheel.py

# The documentation as a site, site/index.html: read without a network, every link checked; pictures of two pages in site/pictures
# where Chromium is.
docs:
	@.ci/setup test
	.venv/bin/python -m pip install --quiet -e '.[docs]'
	.venv/bin/python -m mkdocs build --strict
	RTVC_PICTURES=1 .venv/bin/python -m pytest -q tests/test_docs.py

# Files under 20,000 hostile cases, each with 10 s and bounded memory, then the streaming protocol under 100,000 hostile frames,
# without sockets and live; either goes on for a minute guided by coverage.
fuzz:
	@.ci/setup test
	.venv/bin/python -m pip install --quiet 'atheris>=3.0'
	.venv/bin/python tests/support/fuzzing_files.py 20000 60
	.venv/bin/python tests/support/fuzzing.py 100000 60

# The first generation's weights from recordings, which what ships begins as (docs/training.md): `make weights MANIFEST=data/train.tsv`. Takes hours; run it again and it goes on.
MANIFEST ?= data/train.tsv
weights:
	@.ci/setup test
	.venv/bin/rtvc train recipe $(MANIFEST) -o checkpoints/first.safetensors --folder runs/recipe
