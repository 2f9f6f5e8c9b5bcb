"""Small CLIP models with random weights, in the layouts that real ones are published in."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig

CONFIG = "open_clip_config.json"
PREPROCESSING = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
PLAIN = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
# as BiomedCLIP's, but for the sizes; its text encoder is named by an address from which nothing is fetched
BIOMED = {
    "embed_dim": 16,
    "vision_cfg": {
        "timm_model_name": "vit_tiny_patch16_224",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": 224,
    },
    "text_cfg": {
        "hf_model_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
        "hf_tokenizer_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 32,
    },
}
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "liver", "spleen", "ct", "image", "of")


def plain_clip(folder: Path):
    """A folder as of open_clip's own models; returns open_clip's network."""
    torch.manual_seed(0)
    network = open_clip.CLIP(**deepcopy(PLAIN)).eval()
    _write_config(folder, PLAIN)
    weights = {name: value.contiguous().clone() for name, value in network.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return network


def biomed_clip(folder: Path):
    """A folder as BiomedCLIP's, with a torch file and a tokenizer; returns open_clip's network."""
    torch.manual_seed(0)
    bert = folder / "bert"
    BertConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=32,
        max_position_embeddings=32,
    ).save_pretrained(bert)
    config = deepcopy(BIOMED)
    config["text_cfg"] |= {"hf_model_name": str(bert), "hf_model_pretrained": False}
    network = open_clip.CustomTextCLIP(**config).eval()
    for file in bert.iterdir():
        file.unlink()
    bert.rmdir()
    _write_config(folder, BIOMED)
    _write_tokenizer(folder)
    torch.save(network.state_dict(), folder / "open_clip_pytorch_model.bin")
    return network


def _write_config(folder: Path, config: dict) -> None:
    folder.mkdir(exist_ok=True)
    document = {"model_cfg": config, "preprocess_cfg": PREPROCESSING}
    (folder / CONFIG).write_text(json.dumps(document))


def _write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {kind: f"[{kind[:-6].upper()}]" for kind in ("pad_token", "unk_token", "cls_token", "sep_token")}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "mask_token": "[MASK]"} | names)
    )
