"""What every room uses: errors, places, the event loop."""
