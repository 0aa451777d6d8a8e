"""Files of images, a format a file: read here, or checked where ITK reads them."""
