"""How small each setting of a configuration becomes: one table by name, one by type.

A configuration has a few of these settings, under whichever name its authors chose. A number is
never made larger than its default, and a setting that is off by default (None) stays off.
"""

VOCABULARY = 320
"""More than the tokenizer has: what is left names images, sounds and the like."""
WIDTH = 32
LAYERS = 3
HEADS = 4
HEAD_DIM = 8

_NAMES = [
    (
        WIDTH,
        "base_channels hidden_size d_model n_embd embed_dim dim emb_dim embedding_size "
        "out_hidden_size text_hidden_size encoder_hidden_size projection_dim "
        "projector_hidden_size output_dim output_channels hidden_size_global "
        "image_text_hidden_size backbone_hidden_size vision_hidden_size decoder_hidden_size "
        "input_embedding_size d_latents lru_width projection_hidden_size projection_hidden_dim "
        "patch_embed_hidden_size adapter_out_dim output_proj_dims mm_embed_dim "
        "vision_output_dim true_hidden_size image_token_embed_dim embedding_rank "
        "sequence_state_dim sequence_dim attention_hidden_size unit_embed_dim",
    ),
    (
        2 * WIDTH,
        "intermediate_size encoder_ffn_dim decoder_ffn_dim ffn_dim d_ff dff dim_ff d_inner "
        "n_inner hidden_dim mlp_dim ffn_hidden_size feed_forward_size dense_intermediate_size "
        "speech_encoder_intermediate_size t2u_encoder_ffn_dim t2u_decoder_ffn_dim "
        "alignment_intermediate_size projection_intermediate_size intermediate_size_mlp "
        "mamba_d_ssm prompt_mid_dim",
    ),
    (
        WIDTH + 8,
        "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size "
        "shared_experts_intermediate_size expert_ffn_hidden_size "
        "moe_shared_expert_intermediate_size share_expert_dim moe_hidden_size",
    ),
    (
        VOCABULARY,
        "vocab_size src_vocab_size tgt_vocab_size audio_vocab_size t2u_vocab_size "
        "char_vocab_size vocab_size_per_layer_input entity_vocab_size unpadded_vocab_size "
        "encoder_hash_byte_group_vocab unit_hifi_gan_vocab_size ngram_vocab_size_base "
        "pronunciation_vocab_size shape_vocab_size mel_vocab_size",
    ),
    (
        LAYERS,
        "num_hidden_layers encoder_layers decoder_layers n_layer n_layers num_layers layers "
        "num_decoder_layers num_encoder_layers",
    ),
    (
        2,
        "depth num_blocks conf_num_hidden_layers speech_encoder_layers t2u_encoder_layers "
        "t2u_decoder_layers num_key_value_heads num_kv_heads linear_num_key_heads n_group "
        "topk_group num_global_layers num_sparse_encoder_layers num_sparse_decoder_layers "
        "num_experts_per_tok moe_topk moe_k top_k_experts moe_top_k moe_num_shared_experts "
        "n_groups mamba_n_groups resampler_depth sliding_window_pattern "
        "global_attn_every_n_layers spatial_merge_size temporal_patch_size "
        "swa_num_key_value_heads max_window_layers no_rope_layer_interval "
        "num_self_attends_per_block aligner_num_add_layers num_res_blocks index_topk_blocks "
        "kv_n_heads hc_mult hc_count",
    ),
    (
        1,
        "first_k_dense_replace decoder_sparse_step encoder_sparse_step num_dense_layers "
        "n_mamba_heads",
    ),
    (
        HEADS,
        "num_attention_heads num_heads n_head n_heads encoder_attention_heads "
        "decoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads "
        "attention_heads linear_num_value_heads num_self_attention_heads "
        "num_cross_attention_heads speech_encoder_attention_heads t2u_encoder_attention_heads "
        "t2u_decoder_attention_heads conf_num_attention_heads resampler_n_heads resampler_heads "
        "linear_num_heads swa_num_attention_heads index_n_heads n_routed_experts num_experts "
        "num_local_experts moe_num_experts patch_size rotary_dim num_query_tokens "
        "zero_expert_num index_topk",
    ),
    (
        HEAD_DIM,
        "head_dim d_kv v_head_dim index_head_dim linear_key_head_dim linear_value_head_dim "
        "d_head dim_head swa_head_dim linear_head_dim attention_head_size kv_channels "
        "qk_rope_head_dim global_head_dim resampler_head_dim resampler_dim_head swa_v_head_dim "
        "mamba_head_dim mamba_n_heads mamba_num_heads mamba_d_state state_size ssm_state_size "
        "mamba_chunk_size chunk_size sliding_window local_attention attention_window "
        "attention_window_size attention_chunk_size sliding_window_size "
        "local_attention_window_len keep_window_size hidden_size_per_layer_input laurel_rank "
        "d_rel gated_norm_rank entity_emb_size resampler_n_latents resampler_num_latents "
        "latent_query_num num_latents mm_tokens_per_image local_radius global_block_size "
        "mamba_d_head conv_attention_chunk_size loop_gate_rank hc_lowrank prompt_length "
        "num_conv_pos_embeddings pronunciation_embed_dim shape_embed_dim intra_bottleneck_size",
    ),
    (
        WIDTH // 2,
        "kv_lora_rank q_lora_rank image_size max_image_size crop_size num_landmarks "
        "segment_means_seq_len num_mel_bins o_lora_rank",
    ),
    (4, "qk_nope_head_dim num_global_tokens"),
    (
        64,
        "max_position_embeddings n_positions max_seq_len n_ctx max_source_positions "
        "max_target_positions context_length num_position_embeddings "
        "max_encoder_position_embeddings max_decoder_position_embeddings rel_extent "
        "position_embedding_size original_max_position_embeddings max_2d_position_embeddings",
    ),
]
SMALL = {name: value for value, names in _NAMES for name in names.split()}
SMALL |= {"codebook_size": 256, "num_embeddings": 256}


LAYER_LISTS = ("layer_types", "layers_block_type", "mlp_layer_types")
"""Settings that say of each layer what it is"""

_SECTIONS = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
}
"""Turns shared out among time, height and width: half of HEAD_DIM together"""
_WITH_SECTIONS = (
    "cosmos3_edge_text",
    "glm4v_text",
    "glm_image_text",
    "glm_ocr_text",
    "hy_v4_vl_text",
    "paddleocr_vl_text",
    "qwen2_5_omni_text",
    "qwen2_5_vl_text",
    "qwen2_vl_text",
)
_BERT = {"model_type": "bert", "max_position_embeddings": 64}
PER_TYPE: dict[str, dict] = {
    "bamba": {"attn_layer_indices": [1]},
    "blenderbot": {"decoder_layers": 2},
    "blt": {"use_cache": False},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}
    },
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dory": {"num_hidden_layers": 4, "n_input_layers": 1, "n_output_layers": 1},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note_audio_encoder": {"adapter_input_size": WIDTH, "downsample_hidden_size": 32},
    "dots3_note_vision_encoder": {"adapter_in_dim": WIDTH},
    "dots3_note_text": {
        "num_key_value_heads": HEADS,
        "sliding_window": 8,
        "swa_num_attention_heads": 2,
        "swa_num_key_value_heads": 2,
        "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 8,
    },
    "encoder-decoder": {
        "encoder": _BERT,
        "decoder": _BERT | {"is_decoder": True, "add_cross_attention": True},
    },
    "gemma3n_text": {"num_hidden_layers": 4, "num_kv_shared_layers": 2},
    "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]], "window_size": 8},
    "nemotron_h": {"layers_block_type": ["linear_attention", "full_attention", "moe"]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    "mamba2": {"head_dim": 16},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
    },
    "reformer": {
        "axial_pos_embds_dim": [8, 24],
        "axial_pos_shape": [8, 8],
        "attn_layers": ["local", "lsh", "local"],
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
        "hash_seed": 0,
    },
    "xlstm": {"hidden_size": 64, "embedding_dim": 64, "qk_dim_factor": 1.0},
    "zamba": {"num_hidden_layers": 4},
    "zamba2": {"num_hidden_layers": 4},
    "xmod": {"default_language": "en_XX"},
    **dict.fromkeys(_WITH_SECTIONS, _SECTIONS),
    "glm4v_moe_text": _SECTIONS | {"head_dim": 16},
    "hunyuan_vl_text": {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [1, 1, 1, 1],
        }
    },
    "esmc": {"num_key_value_heads": HEADS},
    "neomme": {"head_dim": 16},
    "nemotron3_diarization": {"head_config": {"audio_hidden_size": WIDTH}},
    "wavtokenizer_encoder": {"codebook_dim": WIDTH},
    "apertus1p5": {
        "image_token_offset": VOCABULARY,
        "audio_token_offset": VOCABULARY + 256,
        "text_config": {"vocab_size": VOCABULARY + 512},
    },
    "chameleon": {"vocabulary_map": {"<image>": 301, "IMGIMGAAZ": 302}},
    "deepseek_ocr2_text": {
        "num_experts_per_tok": 2,
        "mlp_layer_types": ["dense", "sparse", "sparse"],
    },
    "diffusion_gemma_text": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 40},
    "ernie4_5_vl_moe_text": {
        "moe_intermediate_size": [40, 24],
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [1, 1, 2],
        },
    },
    "florence_vision": {
        "depths": [1, 1, 1, 1],
        "embed_dim": [8, 16, 16, 32],
        "num_heads": [1, 2, 2, 4],
        "num_groups": [1, 2, 2, 4],
        "patch_size": [7, 3, 3, 3],
    },
    "glm5_next_text": {"index_kpool": 4},
    "granite4_vision": {
        "deepstack_layer_map": [[-1, 0]],
        "downsample_rate": "1/2",
        "spatial_target_layers": [2],
        "vision_config": {"hidden_size": 128},
    },
    "molmo2": {"adapter_config": {"vision_feature_layer": [2, 0]}},
    "muse_spark_audio": {
        "num_hidden_layers": 4,
        "hidden_sizes": [8, 16, 16, 32],
        "depths": [1, 1, 1, 1],
    },
    "nemotron_h_omni": {"vision_config": {"model_type": "radio", "video_temporal_patch_size": 2}},
    "qwen2_5_omni_thinker": {"vision_start_token_id": VOCABULARY - 1},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": VOCABULARY - 1},
    "step3p5": {"sliding_window": 8},
    "step3p7_text": {"sliding_window": 8},
    "dia_decoder": {"cross_hidden_size": WIDTH},
    "gradium_phonon_tts": {"flow_head_config": {"condition_dim": WIDTH}},
    "pocket_tts": {"flow_head_config": {"condition_dim": WIDTH}},
    "emu3": {
        "vocabulary_map": {
            "<image>": 301,
            "<|extra_200|>": 302,
            "<|visual token 000000|>": 303,
        }
    },
    # Their own vision towers need the package timm; what is tried is the text.
    "fast_vlm": {"vision_config": {"model_type": "clip_vision_model"}},
    "perception_lm": {
        "vision_config": {"model_type": "clip_vision_model", "model_args": {"embed_dim": WIDTH}}
    },
    "llama4_vision_model": {"projector_input_dim": WIDTH, "projector_output_dim": WIDTH},
    "vibevoice_acoustic_tokenizer_encoder": {
        "num_filters": 4,
        "depths": [1, 1, 1],
        "downsampling_ratios": [2, 2],
    },
}
"""What the table by name doesn't do, by the type that a configuration names, nested ones too"""
