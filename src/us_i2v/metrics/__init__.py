"""Metrics: pure functions over clips or features; the networks that give features lie apart.

Functions
    perceptual, ssim    L1, PSNR, fidelity of frame 0, SSIM
    motion              motion energy, high-pass ratio, flow lengths
    block_matching      block motion and the share of frame change that it explains
    speckle             decorrelation, local deviation, envelope SNR, flicker
    frechet, kernel     distances of feature sets, with their spread
    critic              how well a linear classifier tells real from fake
    energy_score        a proper score of several answers to one still
    diversity           DIV
    intervals           confidence intervals over patients

Networks, loaded from verified files that the caller has
    lpips, x3d, i3d, inception      the networks
    extractors, embedding           features of clips by one table
    pretrained, publishers, hub     where weights are found, and which files are known
    conversion                      their safetensors made of the publishers' files
"""
