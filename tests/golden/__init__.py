"""Files that earlier versions have saved, and what makes them."""
