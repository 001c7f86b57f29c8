"""Make the golden files of tests/saving/peft/test_load.py with the real PEFT.

Run this script by hand in an environment with `pip install keras_transfer[peft]`:

    python tests/golden/make_peft.py

It makes the folders that are missing, and never overwrites one. Each family has a
folder. It contains `base`, a tiny random Hugging Face model, one folder of PEFT for
each case, and `outputs.npz`, the inputs and PyTorch's outputs.
"""

import pathlib

import numpy as np
import peft
import torch
import transformers

FOLDER = pathlib.Path(__file__).parent / "peft"
LENGTHS = (7, 4)  # number of tokens in the two rows before the padding

BERT = transformers.BertConfig(
    vocab_size=20,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=10,
    max_position_embeddings=9,
    num_labels=3,
    initializer_range=0.4,
)
ROBERTA = transformers.RobertaConfig(
    **{
        key: getattr(BERT, key)
        for key in (
            "vocab_size",
            "hidden_size",
            "num_attention_heads",
            "intermediate_size",
            "num_labels",
            "initializer_range",
        )
    },
    num_hidden_layers=2,
    max_position_embeddings=11,
    layer_norm_eps=1e-5,
    type_vocab_size=1,
)
DISTIL_BERT = transformers.DistilBertConfig(
    vocab_size=20,
    dim=12,
    n_layers=2,
    n_heads=3,
    hidden_dim=10,
    max_position_embeddings=9,
    num_labels=3,
    initializer_range=0.4,
)
ALBERT = transformers.AlbertConfig(
    vocab_size=20,
    embedding_size=6,
    hidden_size=12,
    num_hidden_layers=3,
    num_attention_heads=3,
    intermediate_size=10,
    max_position_embeddings=9,
    num_labels=3,
    initializer_range=0.4,
)
GPT2 = transformers.GPT2Config(
    vocab_size=20,
    n_positions=9,
    n_embd=9,
    n_layer=2,
    n_head=3,
    initializer_range=0.4,
    bos_token_id=0,
    eos_token_id=0,
)
LLAMA = transformers.LlamaConfig(
    vocab_size=20,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=10,
    max_position_embeddings=9,
    initializer_range=0.4,
    rms_norm_eps=1e-6,
    bos_token_id=0,
    eos_token_id=0,
    tie_word_embeddings=False,
)

SMALL = dict(
    vocab_size=20,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=10,
    initializer_range=0.4,
)
XLM_ROBERTA = transformers.XLMRobertaConfig(
    **SMALL,
    max_position_embeddings=11,
    layer_norm_eps=1e-5,
    type_vocab_size=1,
    num_labels=3,
)
DECODER = SMALL | dict(
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=9,
    rms_norm_eps=1e-6,
    bos_token_id=0,
    eos_token_id=0,
)
GEMMA = transformers.GemmaConfig(**DECODER, head_dim=4)
QWEN3 = transformers.Qwen3Config(
    **DECODER, head_dim=4, tie_word_embeddings=False, use_sliding_window=False
)
MISTRAL = transformers.MistralConfig(**DECODER, head_dim=4, sliding_window=9)
VIT = transformers.ViTConfig(
    **{k: v for k, v in SMALL.items() if k != "vocab_size"},
    image_size=6,
    patch_size=3,
    layer_norm_eps=1e-6,
    num_labels=3,
)
T5 = transformers.T5Config(
    vocab_size=20,
    d_model=12,
    d_kv=4,
    d_ff=10,
    num_layers=2,
    num_heads=3,
    feed_forward_proj="gated-gelu",
    dropout_rate=0.0,
    initializer_factor=0.5,
    decoder_start_token_id=0,
)

# Settings of the techniques other than LoRA.
LOHA = dict(kind=peft.LoHaConfig, r=2, alpha=6)
LOKR = dict(kind=peft.LoKrConfig, r=1, alpha=3)
IA3 = dict(kind=peft.IA3Config)
VERA = dict(kind=peft.VeraConfig, r=5, vera_dropout=0.1, projection_prng_key=3)
NORMS = dict(kind=peft.LNTuningConfig)
LORA = dict(kind=peft.LoraConfig, r=2, lora_alpha=6, lora_dropout=0.1)
ALL_LINEAR = dict(target_modules="all-linear", task_type="CAUSAL_LM")

# For each family: its config, the kind of model that saves the base, and the cases. A
# case has the kind of model and PEFT's settings.
FAMILIES = {
    "bert": (
        BERT,
        "SequenceClassification",
        {
            "query_value": ("", dict(target_modules=["query", "value"])),
            "patterns": (
                "",
                dict(
                    target_modules="all-linear",
                    use_rslora=True,
                    rank_pattern={"layer.0.attention.self.query": 3, "output.dense": 1},
                    alpha_pattern={".*intermediate.dense": 5, "key": 3},
                ),
            ),
            "embeddings": ("", dict(target_modules=["word_embeddings", "key"])),
            "bias_all": ("", dict(target_modules=["query"], bias="all")),
            "bias_lora_only": (
                "",
                dict(target_modules=["query", "output.dense"], bias="lora_only"),
            ),
            "seq_cls": (
                "SequenceClassification",
                dict(target_modules=["query", "value"], task_type="SEQ_CLS"),
            ),
            "dora": ("", dict(target_modules="all-linear", use_dora=True)),
            "half": ("", dict(target_modules=["query", "value"])),
            "loha": ("", LOHA | dict(target_modules="all-linear")),
            "loha_seq_cls": (
                "SequenceClassification",
                LOHA
                | dict(
                    target_modules=["query", "output.dense"],
                    task_type="SEQ_CLS",
                    rank_pattern={"layer.0.attention.self.query": 3},
                    alpha_pattern={"output.dense": 5},
                    modules_to_save=["classifier"],
                ),
            ),
            "lokr": ("", LOKR | dict(target_modules="all-linear")),
            "lokr_both": (
                "",
                LOKR
                | dict(
                    target_modules=["query", "output.dense"],
                    decompose_both=True,
                    decompose_factor=4,
                    rank_pattern={"layer.0.attention.self.query": 2},
                ),
            ),
            "saved_embeddings": (
                "",
                dict(target_modules=["query"], save_embedding_layers=True),
            ),
            "words_to_save": (
                "",
                dict(target_modules=["query"], modules_to_save=["word_embeddings"]),
            ),
            "some_blocks": (
                "",
                dict(
                    target_modules=["query", "output.dense"],
                    layers_to_transform=[1],
                    layers_pattern=["layer"],
                ),
            ),
            "lora_bias": (
                "",
                dict(target_modules=["query", "output.dense"], lora_bias=True),
            ),
            "ia3": (
                "",
                IA3
                | dict(
                    target_modules=["key", "value", "layer.0.output.dense"],
                    feedforward_modules=["layer.0.output.dense"],
                ),
            ),
            "ia3_seq_cls": ("SequenceClassification", IA3 | dict(task_type="SEQ_CLS")),
            "vera": ("", VERA | dict(target_modules=["query", "output.dense"])),
            "vera_seed": (
                "",
                VERA | dict(target_modules=["value"], save_projection=False),
            ),
            "ln_tuning": ("", NORMS | dict(target_modules=["LayerNorm"])),
            "ln_seq_cls": (
                "SequenceClassification",
                NORMS
                | dict(
                    target_modules=["output.LayerNorm"],
                    task_type="SEQ_CLS",
                    modules_to_save=["classifier"],
                ),
            ),
        },
    ),
    "roberta": (
        ROBERTA,
        "SequenceClassification",
        {
            "seq_cls": (
                "SequenceClassification",
                dict(target_modules=["query", "value"], task_type="SEQ_CLS"),
            ),
        },
    ),
    "distilbert": (
        DISTIL_BERT,
        "SequenceClassification",
        {
            "all_linear": ("", dict(target_modules="all-linear")),
            "seq_cls": (
                "SequenceClassification",
                dict(
                    target_modules=["q_lin", "v_lin"],
                    task_type="SEQ_CLS",
                    modules_to_save=["pre_classifier", "classifier"],
                ),
            ),
        },
    ),
    "albert": (
        ALBERT,
        "SequenceClassification",
        {
            "seq_cls": (
                "SequenceClassification",
                dict(target_modules="all-linear", task_type="SEQ_CLS"),
            ),
        },
    ),
    "gpt2": (
        GPT2,
        "CausalLM",
        {
            "fused": ("", dict(target_modules=["c_attn"])),
            "causal_lm": (
                "CausalLM",
                dict(target_modules="all-linear", task_type="CAUSAL_LM"),
            ),
            "embeddings": (
                "CausalLM",
                dict(target_modules=["wte", "c_attn"], task_type="CAUSAL_LM"),
            ),
            "ia3": ("", IA3),
            "saved_causal_lm": (
                "CausalLM",
                dict(task_type="CAUSAL_LM", save_embedding_layers=True),
            ),
        },
    ),
    "llama": (
        LLAMA,
        "CausalLM",
        {
            "causal_lm": (
                "CausalLM",
                dict(target_modules="all-linear", task_type="CAUSAL_LM"),
            ),
            "embeddings": (
                "CausalLM",
                dict(target_modules=["embed_tokens", "q_proj"], task_type="CAUSAL_LM"),
            ),
            "dora": (
                "",
                dict(target_modules=["q_proj", "v_proj", "up_proj"], use_dora=True),
            ),
            "ia3_causal_lm": ("CausalLM", IA3 | dict(task_type="CAUSAL_LM")),
            "vera": ("", VERA | dict(target_modules=["q_proj", "v_proj"])),
            "ln_causal_lm": ("CausalLM", NORMS | dict(task_type="CAUSAL_LM")),
        },
    ),
    "xlm_roberta": (
        XLM_ROBERTA,
        "SequenceClassification",
        {
            "seq_cls": (
                "SequenceClassification",
                dict(target_modules=["query", "value"], task_type="SEQ_CLS"),
            ),
        },
    ),
    "gemma": (GEMMA, "CausalLM", {"causal_lm": ("CausalLM", ALL_LINEAR)}),
    "qwen3": (QWEN3, "CausalLM", {"causal_lm": ("CausalLM", ALL_LINEAR)}),
    "mistral": (
        MISTRAL,
        "CausalLM",
        {
            "causal_lm": ("CausalLM", ALL_LINEAR),
            "ln_causal_lm": ("CausalLM", NORMS | dict(task_type="CAUSAL_LM")),
        },
    ),
    "vit": (
        VIT,
        "ImageClassification",
        {
            "features": ("", dict(target_modules=["q_proj", "v_proj", "fc2"])),
            "classifier": (
                "ImageClassification",
                dict(target_modules="all-linear", modules_to_save=["classifier"]),
            ),
        },
    ),
    "t5": (
        T5,
        "Seq2SeqLM",
        {
            "features": ("", dict(target_modules=["q", "v", "wi_0", "wo"])),
            "ia3": ("", IA3),
        },
    ),
}


def inputs_of(config):
    """Return token ids and padding mask; a padding token is 1, as in RoBERTa."""
    rng = np.random.default_rng(0)
    if config.model_type == "vit":
        return rng.normal(size=(2, 3, 6, 6)).astype("float32"), None
    ids = rng.integers(3, config.vocab_size, (len(LENGTHS), max(LENGTHS)))
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    return np.where(mask, ids, 1), mask.astype("int64")


def outputs_of(model, ids, mask):
    """Return the logits of a model with a head, or the features of a bare one."""
    model.eval()
    inputs = {model.main_input_name: torch.tensor(ids)}
    if mask is not None:
        inputs["attention_mask"] = torch.tensor(mask)
    if model.config.is_encoder_decoder:
        inputs |= {f"decoder_{key}": value for key, value in inputs.items()}
    with torch.no_grad():
        found = model(**inputs)
    return (found.logits if "logits" in found else found.last_hidden_state).numpy()


def randomize(model, seed):
    """Change all trainable weights, so no weight has its initial value."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not weight.requires_grad:
                continue
            if "magnitude" in name:
                weight *= 0.5 + torch.rand_like(weight)
            else:
                weight += 0.2 * torch.randn_like(weight)


def make_base(folder, config, kind):
    """Write the folder of a tiny random model."""
    torch.manual_seed(0)
    whole = getattr(transformers, f"AutoModelFor{kind}").from_config(config)
    with torch.no_grad():
        for weight in whole.parameters():  # also biases and norms, which are 0 or 1
            weight += 0.1 * torch.randn_like(weight)
            # keras-hub's converter of Mistral rounds to half precision.
            weight.data = weight.half().float()
    whole.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def make(family, config, base_kind, cases):
    """Write the folder of one family."""
    folder = FOLDER / family
    base = folder / "base"
    if not base.is_dir():
        make_base(base, config, base_kind)
    ids, mask = inputs_of(config)
    arrays = {"token_ids": ids, "padding_mask": mask}
    if mask is None:
        arrays = {"images": ids.transpose(0, 2, 3, 1)}
    arrays["base"] = outputs_of(transformers.AutoModel.from_pretrained(base), ids, mask)
    outputs = folder / "outputs.npz"
    if outputs.is_file():
        arrays |= np.load(outputs)
    for seed, (case, (kind, settings)) in enumerate(cases.items()):
        if (folder / case).is_dir():
            continue
        auto = getattr(transformers, "AutoModelFor" + kind if kind else "AutoModel")
        model = auto.from_pretrained(base)
        settings = settings if "kind" in settings else LORA | settings
        settings = dict(settings)
        words = settings.pop("save_embedding_layers", "auto")
        model = peft.get_peft_model(model, settings.pop("kind")(**settings))
        randomize(model, seed)
        pairs = [each for name, each in model.named_parameters() if "lora_" in name]
        if case == "half":  # the outputs use the rounded values that are saved
            for weight in pairs:
                weight.data = weight.data.half().float()
        arrays[case] = outputs_of(model, ids, mask)
        if case == "half":
            for weight in pairs:
                weight.data = weight.data.half()
        config_saved = model.peft_config["default"]
        config_saved.base_model_name_or_path = f"tiny/{family}"
        # Python would write this set in a different order each time.
        for key in ("target_modules", "feedforward_modules"):
            if isinstance(getattr(config_saved, key, None), set):
                setattr(config_saved, key, sorted(getattr(config_saved, key)))
        model.save_pretrained(folder / case, save_embedding_layers=words)
        (folder / case / "README.md").unlink()
    np.savez_compressed(outputs, **arrays)
    for path in folder.glob("*/*.safetensors"):
        path.chmod(0o644)  # safetensors allows only the owner to read


if __name__ == "__main__":
    for each, settings in FAMILIES.items():
        make(each, *settings)
