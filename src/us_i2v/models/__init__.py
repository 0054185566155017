"""Networks: video encoder, decoders (AdaIN, warp), denoiser, and the motion that they exchange."""
