"""Files that earlier versions saved, and the scripts that make them."""
