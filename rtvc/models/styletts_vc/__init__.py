"""StyleTTS-VC (arXiv 2212.14227): its eight components, under the names of the authors'
checkpoints."""
