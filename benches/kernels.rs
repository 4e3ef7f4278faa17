//! Kernels of the fastest instruction set of this CPU (`MANTLE_ISA` chooses another), on one thread, with inputs that
//! stay in the cache. `cargo bench` measures; `cargo test` runs each case once.
//!
//! Matrix products are given in elements (multiply-adds) a second, at one token in bytes of weights.

#![allow(clippy::unwrap_used)] // A failure should end the benchmark.

#[path = "../tests/kernels_support/mod.rs"]
mod kernels_support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels_support::*;
use mantle::base::matrix::MatrixMut;
use mantle::format::dtype::DataType;
use mantle::kernels::activation::Activation;
use mantle::kernels::attention::{MAX_ROWS, scratch_length, value_dim};
use mantle::kernels::simd::LANES;
use mantle::kernels::{AttentionInput, CACHE_TYPES, Isa, Kernels, Strategy};
use mantle::quant::activations::Form;
use std::hint::black_box;

/// Rows and columns of the matrices.
const SIZE: usize = 768;

fn kernels() -> &'static Kernels {
    let cap = std::env::var("MANTLE_ISA").ok();
    let cap = cap.map(|name| Isa::from_name(&name).unwrap());
    Kernels::of(Isa::best_up_to(cap)).unwrap()
}

fn inputs(count: usize) -> Vec<f32> {
    let mut random = Random(1);
    (0..count).map(|_| random.signed()).collect()
}

fn matmul(criterion: &mut Criterion) {
    let kernels = kernels();
    for dtype in packable() {
        let mut group = criterion.benchmark_group(format!("matmul/{}", dtype.name()));
        let stored = random_weights(dtype, SIZE, SIZE, true, &mut Random(2));
        let weights = pack(dtype, &stored, SIZE, SIZE);
        for tokens in [1, 6, 32, 256] {
            let x = Prepared::new(kernels, Form::of(dtype), &inputs(tokens * SIZE), tokens, SIZE);
            let mut output = vec![0.0; tokens * SIZE];
            group.throughput(match tokens {
                1 => Throughput::Bytes(weights.bytes().len() as u64),
                _ => Throughput::Elements((tokens * SIZE * SIZE) as u64),
            });
            group.bench_function(BenchmarkId::from_parameter(tokens), |bencher| {
                bencher.iter(|| {
                    let output = MatrixMut::new(&mut output, tokens, SIZE, SIZE).unwrap();
                    let panels = 0..weights.panels();
                    kernels.matmul(black_box(&weights), panels, &x.view(), output, None, false);
                });
            });
        }
    }
}

/// 1024 keys of 64 values under a group of three heads: a decoding token, and as many tokens as a call takes.
fn attention(criterion: &mut Criterion) {
    let (kernels, head_dim, group, key_count) = (kernels(), 64_usize, 3_usize, 1024_usize);
    let width = group * head_dim;
    for dtype in CACHE_TYPES {
        let bytes = if dtype == DataType::F32 { 4 } else { 2 };
        let mut keys = Guarded::<u8>::new(key_count.next_multiple_of(LANES) * head_dim * bytes);
        let mut values = Guarded::<u8>::new(key_count * value_dim(head_dim) * bytes);
        for (position, row) in inputs(key_count * head_dim).chunks_exact(head_dim).enumerate() {
            kernels.store_key(row, position, &mut keys, dtype);
            kernels.store_value(row, position, &mut values, dtype);
        }
        let mut bench = criterion.benchmark_group(format!("attention/{}", dtype.name()));
        for tokens in [1, MAX_ROWS / group] {
            let queries = inputs(tokens * width);
            let mut output = vec![0.0; tokens * width];
            let mut scratch = vec![0.0; scratch_length(tokens * group, head_dim)];
            bench.throughput(match tokens {
                1 => Throughput::Bytes((keys.len() + values.len()) as u64),
                _ => Throughput::Elements((2 * tokens * group * key_count * head_dim) as u64),
            });
            bench.bench_function(BenchmarkId::from_parameter(tokens), |bencher| {
                bencher.iter(|| {
                    let input = AttentionInput {
                        queries: black_box(&queries),
                        query_stride: width,
                        group,
                        head_dim,
                        position: key_count - tokens,
                        key_count,
                        causal: true,
                        window: 0,
                        scale: 0.125,
                        cap: 0.0,
                        keys: &keys,
                        key_type: dtype,
                        values: &values,
                        value_type: dtype,
                    };
                    let output = MatrixMut::new(&mut output, tokens, width, width).unwrap();
                    kernels.attention(&input, output, &mut scratch);
                });
            });
        }
    }
}

fn rows(criterion: &mut Criterion) {
    let kernels = kernels();
    let (x, weight) = (inputs(SIZE), inputs(SIZE));
    let mut y = vec![0.0; SIZE];
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Elements(SIZE as u64));
    group.bench_function("rms_norm", |bencher| {
        bencher.iter(|| kernels.rms_norm(black_box(&x), &weight, 1e-5, &mut y));
    });
    group.bench_function("silu_gate", |bencher| {
        bencher.iter(|| {
            y.copy_from_slice(&x); // A gate of its own result would sink into the denormals.
            kernels.gate(Activation::Silu, black_box(&mut y), &weight);
        });
    });
    let (cosine, sine) = (vec![0.6; 32], vec![0.8; 32]);
    group.bench_function("rotate_halves", |bencher| {
        bencher.iter(|| kernels.rotate_halves(black_box(&mut y), SIZE / 64, 64, &cosine, &sine));
    });
    for (name, form) in [("quantize", Form::Codes), ("round to bf16", Form::Bf16)] {
        let mut prepared = Prepared::new(kernels, form, &x, 1, SIZE);
        group.bench_function(name, |bencher| {
            prepared.refill(|activations| {
                let mut part = activations.whole();
                bencher.iter(|| kernels.activate(form, black_box(&x), part.row(0)));
            });
        });
    }
}

/// Activation functions, gates and norms of rows.
fn functions(criterion: &mut Criterion) {
    let kernels = kernels();
    let (x, weight) = (inputs(SIZE), inputs(SIZE));
    let mut y = vec![0.0; SIZE];
    let mut group = criterion.benchmark_group("functions");
    group.throughput(Throughput::Elements(SIZE as u64));
    for (name, activation) in [
        ("silu", Activation::Silu),
        ("gelu_tanh", Activation::GeluTanh),
        ("gelu_erf", Activation::GeluErf),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                y.copy_from_slice(&x);
                kernels.activation(activation, black_box(&mut y));
            });
        });
        group.bench_function(format!("gate/{name}"), |bencher| {
            bencher.iter(|| {
                y.copy_from_slice(&x);
                kernels.gate(activation, black_box(&mut y), &weight);
            });
        });
    }
    group.bench_function("layer_norm", |bencher| {
        bencher.iter(|| {
            y.copy_from_slice(&x);
            kernels.layer_norm(black_box(&mut y), &weight, &x, 1e-5);
        });
    });
    group.bench_function("add_rms_norm", |bencher| {
        bencher.iter(|| {
            y.copy_from_slice(&x);
            kernels.add_rms_norm(black_box(&x), &weight, 1e-5, &mut y);
        });
    });
}

/// Weights decoded in registers and in the cache: `mantle-bench crossover` has the same on all threads.
fn strategies(criterion: &mut Criterion) {
    let kernels = kernels();
    for dtype in packable().filter(|&dtype| Form::of(dtype) == Form::Codes) {
        let mut group = criterion.benchmark_group(format!("strategies/{}", dtype.name()));
        let stored = random_weights(dtype, SIZE, SIZE, true, &mut Random(2));
        let weights = pack(dtype, &stored, SIZE, SIZE);
        for tokens in [6, 24, 96] {
            let x = Prepared::new(kernels, Form::Codes, &inputs(tokens * SIZE), tokens, SIZE);
            let mut output = vec![0.0; tokens * SIZE];
            group.throughput(Throughput::Elements((tokens * SIZE * SIZE) as u64));
            for strategy in [Strategy::InRegisters, Strategy::InCache] {
                let id = BenchmarkId::new(format!("{strategy:?}"), tokens);
                group.bench_function(id, |bencher| {
                    bencher.iter(|| {
                        let output = MatrixMut::new(&mut output, tokens, SIZE, SIZE).unwrap();
                        let panels = 0..weights.panels();
                        kernels.matmul_by(
                            strategy,
                            black_box(&weights),
                            panels,
                            &x.view(),
                            output,
                            None,
                            false,
                        );
                    });
                });
            }
        }
    }
}

criterion_group!(benches, matmul, attention, rows, functions, strategies);
criterion_main!(benches);
