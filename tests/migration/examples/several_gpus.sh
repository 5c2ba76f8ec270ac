export MODEL=Qwen/Qwen2.5-7B-Instruct
nproc_per_node=2

NPROC_PER_NODE=$nproc_per_node \
swift sft \
    --model $MODEL \
    --tuner_type lora \
    --dataset AI-ModelScope/alpaca-gpt4-data-zh#500 \
              swift/self-cognition:qwen3/empty_think \
              'HF::somebody/their-rows' \
    --val_dataset registry/quiz.jsonl \
    --quant_bits 4 --quant_method bnb \
    --per_device_train_batch_size=2 \
    --target_modules q_proj v_proj \
    --loss_scale last_round \
    --truncation_strategy left \
    --lr_scheduler_type constant \
    --warmup_ratio 0.1 \
    --packing true \
    --use_dora false \
    --lorap_lr_ratio 16 \
    --deepspeed zero2
swift infer --adapters output/last
