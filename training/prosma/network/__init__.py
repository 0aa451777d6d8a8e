"""The paper: the proximal-sparse skip gate and ProSMA-UNet, in 2D and 3D. Needs torch alone."""
