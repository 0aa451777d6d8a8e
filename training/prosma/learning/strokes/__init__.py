"""What a promptable network learns from: objects in any images, and a simulated person who strokes them."""
