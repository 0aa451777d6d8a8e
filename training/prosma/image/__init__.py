"""Images as arrays with a place in the patient: reading, geometry, resampling, intensities, label maps, writing."""
