"""From an image and a model to labels on the image's own grid: sliding window, memory, devices."""
