"""Make the golden files of tests/saving/peft/test_prompt_files.py with the real PEFT.

Run this script by hand in an environment with `pip install keras_transfer[peft]`:

    python tests/golden/make_prompts.py

Each case has a folder of PEFT and `outputs.npz`, PyTorch's outputs for the inputs in
tests/golden/peft, without the virtual tokens. The base models are there too.
"""

import pathlib
import shutil

import numpy as np
import peft
import torch
import transformers

PEFT = pathlib.Path(__file__).parent / "peft"
FOLDER = pathlib.Path(__file__).parent / "peft_prompts"
TOKENS = 2
PROMPT = dict(kind=peft.PromptTuningConfig, prompt_tuning_init="RANDOM")
PREFIX = dict(kind=peft.PrefixTuningConfig)
NETWORK = PREFIX | dict(prefix_projection=True, encoder_hidden_size=5)

# For each case: the kind of model, the task, and PEFT's settings.
CASES = {
    "bert_prompt": ("AutoModel", "FEATURE_EXTRACTION", PROMPT),
    "bert_prefix": ("AutoModel", "FEATURE_EXTRACTION", PREFIX),
    "gpt2_prompt": ("AutoModelForCausalLM", "CAUSAL_LM", PROMPT),
    "gpt2_prefix": ("AutoModelForCausalLM", "CAUSAL_LM", NETWORK),
    "llama_prompt": ("AutoModelForCausalLM", "CAUSAL_LM", PROMPT),
    "llama_prefix": ("AutoModelForCausalLM", "CAUSAL_LM", PREFIX),
}


def outputs_of(model, family):
    """Return the logits or features of the text."""
    arrays = np.load(PEFT / family / "outputs.npz")
    model.eval()
    with torch.no_grad():
        found = model(
            input_ids=torch.tensor(arrays["token_ids"]),
            attention_mask=torch.tensor(arrays["padding_mask"]),
        )
    found = found.logits if "logits" in found else found.last_hidden_state
    return found.numpy()[:, -arrays["token_ids"].shape[1] :]


def make(case, auto, task, settings):
    """Write the folder of one case."""
    family = case.split("_")[0]
    settings = dict(settings)
    kind = settings.pop("kind")
    config = kind(task_type=task, num_virtual_tokens=TOKENS, **settings)
    torch.manual_seed(0)
    model = getattr(transformers, auto).from_pretrained(PEFT / family / "base")
    model = peft.get_peft_model(model, config)
    outputs = outputs_of(model, family)
    config = model.peft_config["default"]
    config.base_model_name_or_path = f"tiny/{family}"
    model.save_pretrained(FOLDER / case)
    (FOLDER / case / "README.md").unlink()
    (FOLDER / case / "adapter_model.safetensors").chmod(0o644)
    np.savez_compressed(FOLDER / case / "outputs.npz", outputs=outputs)


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    for each, of_case in CASES.items():
        make(each, *of_case)
