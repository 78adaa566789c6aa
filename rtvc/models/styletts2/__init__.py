"""StyleTTS 2 (arXiv 2306.07691): decoders, prosody predictor, discriminators and style
diffusion."""
