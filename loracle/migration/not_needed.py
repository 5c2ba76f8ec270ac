"""Settings that do not change the training result: where it writes, how often it reports, which
kernels and how many processes it uses."""

from __future__ import annotations

from collections.abc import Mapping

from loracle.plan.foreign import Tool

_LISTED: Mapping[Tool, str] = {
    Tool.LLAMA_FACTORY: """
        output_dir logging_dir logging_steps save_steps save_strategy save_total_limit
        save_only_model plot_loss overwrite_output_dir overwrite_cache preprocessing_num_workers
        preprocessing_batch_size dataloader_num_workers dataloader_pin_memory ddp_timeout
        resume_from_checkpoint do_train do_eval do_predict eval_strategy evaluation_strategy
        eval_steps per_device_eval_batch_size predict_with_generate load_best_model_at_end
        metric_for_best_model greater_is_better flash_attn deepspeed fsdp fsdp_config cache_dir
        use_fast_tokenizer use_unsloth enable_liger_kernel packing neat_packing group_by_length
        include_num_input_tokens_seen include_effective_tokens_per_second run_name push_to_hub
        hub_model_id tokenized_path low_cpu_mem_usage double_quantization quantization_type
        quantization_device_map log_level disable_tqdm remove_unused_columns
        ddp_find_unused_parameters disable_gradient_checkpointing buffer_size eval_on_each_dataset
        compute_accuracy media_dir use_cache tf32 pissa_convert
    """,
    Tool.AXOLOTL: """
        output_dir dataset_prepared_path dataset_processes dataset_num_proc push_dataset_to_hub
        hub_model_id hub_strategy hf_use_auth_token model_type tokenizer_type tokenizer_use_fast
        tokenizer_legacy base_model_config tokenizer_config is_llama_derived_model
        is_mistral_derived_model is_qwen_derived_model is_falcon_derived_model strict
        sample_packing eval_sample_packing sample_packing_group_size sample_packing_bin_size
        sample_packing_eff_est pad_to_sequence_len pad_to_multiple_of group_by_length
        multipack_real_batches logging_steps save_steps saves_per_epoch save_strategy
        save_total_limit save_safetensors save_only_model save_first_step eval_steps
        evals_per_epoch eval_strategy evaluation_strategy eval_batch_size eval_table_size
        eval_max_new_tokens load_best_model_at_end metric_for_best_model greater_is_better
        flash_attention sdp_attention xformers_attention eager_attention flex_attention
        s2_attention attn_implementation flash_attn_cross_entropy flash_attn_rms_norm
        flash_attn_fuse_qkv flash_attn_fuse_mlp lora_mlp_kernel lora_qkv_kernel lora_o_kernel
        lora_fan_in_fan_out lora_on_cpu tf32 torch_compile deepspeed fsdp fsdp_config fsdp_version
        ddp ddp_timeout local_rank world_size device_map max_memory gpu_memory_limit
        low_cpu_mem_usage debug gradient_checkpointing_kwargs dataloader_num_workers
        dataloader_pin_memory dataloader_prefetch_factor auto_resume_from_checkpoints
        resume_from_checkpoint loss_watchdog_threshold loss_watchdog_patience wandb_entity
        wandb_watch wandb_name wandb_run_id wandb_log_model wandb_mode mlflow_experiment_name
        mlflow_run_name use_tensorboard liger_rope liger_rms_norm liger_glu_activation
        liger_layer_norm liger_fused_linear_cross_entropy shuffle_merged_datasets
        remove_unused_columns include_tokens_per_second gc_steps profiler_steps
    """,
    Tool.MS_SWIFT: """
        output_dir add_version logging_steps logging_first_step logging_dir save_steps
        save_strategy save_total_limit save_only_model save_on_each_node eval_steps eval_strategy
        per_device_eval_batch_size eval_batch_size dataloader_num_workers dataloader_pin_memory
        dataset_num_proc load_from_cache_file attn_impl use_flash_attn packing padding_free
        deepspeed fsdp ddp_timeout ddp_backend ddp_find_unused_parameters use_liger_kernel
        model_type task_type device_map max_memory push_to_hub hub_model_id hub_token
        predict_with_generate metric_for_best_model load_best_model_at_end greater_is_better
        resume_from_checkpoint resume_only_model ignore_args_error download_mode
        gradient_checkpointing_kwargs tuner_backend stream data_seed group_by_length run_name
        check_model strict lora_dtype quant_method lazy_tokenize dataset_shuffle
        train_dataloader_shuffle val_dataset_shuffle remove_unused_columns bnb_4bit_compute_dtype
        bnb_4bit_quant_type bnb_4bit_use_double_quant freeze_vit freeze_aligner report_flops
    """,
}

NOT_NEEDED: Mapping[Tool, tuple[str, ...]] = {
    tool: tuple(names.split()) for tool, names in _LISTED.items()
}
