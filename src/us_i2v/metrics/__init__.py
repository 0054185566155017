"""Metrics: pure functions over clips or features; the networks that give features lie apart.

perceptual      L1, PSNR, fidelity of frame 0
motion          motion energy, high-pass ratio, flow lengths
block_matching  block motion and the share of frame change that it explains
lpips, x3d      feature networks, loaded from verified files that the caller has
frechet         distance of feature sets, with its spread
"""
