"""Continue the pretraining of a language model on other texts."""
