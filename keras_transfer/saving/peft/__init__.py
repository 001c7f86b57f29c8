"""Read and write adapters in the file format of Hugging Face PEFT."""
