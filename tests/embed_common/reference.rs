//! A BERT of small random weights as a GGUF file, and the same computed in float64, straight from the papers.

use crate::gguf_support::Writer;
use mantle::format::metadata::Value;
use std::collections::BTreeMap;

pub const WIDTH: usize = 64;
pub const HEADS: usize = 4;
pub const HIDDEN: usize = 160;
pub const LAYERS: usize = 3;
pub const VOCABULARY: usize = 90;
pub const CONTEXT: usize = 600;
const EPSILON: f64 = 1e-12;
const ROPE_BASE: f32 = 1000.0;

/// Which kind of BERT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Positions by a table, GELU, separate matrices with biases.
    Bert,
    /// The same with one matrix for queries, keys and values.
    FusedBert,
    /// Rotary positions, gate, one matrix for queries, keys and values, no biases but those of norms.
    Nomic,
}

/// Its tensors: rows, columns and values by GGUF name.
pub struct Reference {
    pub kind: Kind,
    pub tensors: BTreeMap<String, (usize, usize, Vec<f32>)>,
}

struct Random(u64);

impl Random {
    /// About -1 to 1.
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32 / (1 << 23) as f32) - 1.0
    }
}

impl Reference {
    /// The same weights for every kind, as far as it has them.
    pub fn new(kind: Kind) -> Reference {
        let mut tensors = BTreeMap::new();
        let mut add = |name: String, rows: usize, columns: usize, size: f32, middle: f32| {
            // Seeded by the name, so that kinds share what they have in common.
            let seed = name
                .bytes()
                .fold(7u64, |seed, byte| seed.wrapping_mul(31) + u64::from(byte));
            let mut random = Random(seed);
            (0..8).for_each(|_| {
                random.next();
            });
            let values = (0..rows * columns)
                .map(|_| middle + size * random.next())
                .collect();
            tensors.insert(name, (rows, columns, values));
        };
        add("token_embd.weight".into(), VOCABULARY, WIDTH, 1.0, 0.0);
        add("token_types.weight".into(), 2, WIDTH, 0.5, 0.0);
        if kind != Kind::Nomic {
            add("position_embd.weight".into(), CONTEXT, WIDTH, 0.5, 0.0);
        }
        let scale = 2.0 / (WIDTH as f32).sqrt();
        let mut norms = vec!["token_embd_norm".to_owned()];
        for layer in 0..LAYERS {
            let name = |part: &str| format!("blk.{layer}.{part}");
            for part in ["attn_q", "attn_k", "attn_v", "attn_output"] {
                add(name(&format!("{part}.weight")), WIDTH, WIDTH, scale, 0.0);
            }
            add(name("ffn_up.weight"), HIDDEN, WIDTH, scale, 0.0);
            add(name("ffn_down.weight"), WIDTH, HIDDEN, scale, 0.0);
            if kind == Kind::Nomic {
                add(name("ffn_gate.weight"), HIDDEN, WIDTH, scale, 0.0);
            } else {
                for part in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_down"] {
                    add(name(&format!("{part}.bias")), 1, WIDTH, 0.3, 0.0);
                }
                add(name("ffn_up.bias"), 1, HIDDEN, 0.3, 0.0);
            }
            norms.push(name("attn_output_norm"));
            norms.push(name("layer_output_norm"));
        }
        for norm in norms {
            add(format!("{norm}.weight"), 1, WIDTH, 0.3, 1.0);
            add(format!("{norm}.bias"), 1, WIDTH, 0.3, 0.0);
        }
        Reference { kind, tensors }
    }

    /// Tensors as they stand in the file: fused where the kind asks for it.
    pub fn stored(&self) -> BTreeMap<String, (usize, usize, Vec<f32>)> {
        let mut stored = self.tensors.clone();
        if self.kind == Kind::Bert {
            return stored;
        }
        for layer in 0..LAYERS {
            for suffix in ["weight", "bias"] {
                let mut fused = (0, 0, Vec::new());
                for part in ["attn_q", "attn_k", "attn_v"] {
                    if let Some((rows, columns, values)) =
                        stored.remove(&format!("blk.{layer}.{part}.{suffix}"))
                    {
                        fused = (fused.0 + rows, columns, [fused.2, values].concat());
                    }
                }
                if suffix == "bias" {
                    fused = (1, fused.2.len(), fused.2);
                }
                if !fused.2.is_empty() {
                    stored.insert(format!("blk.{layer}.attn_qkv.{suffix}"), fused);
                }
            }
        }
        stored
    }

    pub fn architecture(&self) -> &'static str {
        if self.kind == Kind::Nomic {
            "nomic-bert"
        } else {
            "bert"
        }
    }

    /// The file.
    pub fn gguf(&self) -> Vec<u8> {
        let architecture = self.architecture();
        let key = |name: &str| format!("{architecture}.{name}");
        let mut keys = vec![
            (
                "general.architecture".to_owned(),
                Value::String(architecture.to_owned()),
            ),
            (key("context_length"), Value::U32(CONTEXT as u32)),
            (key("embedding_length"), Value::U32(WIDTH as u32)),
            (key("block_count"), Value::U32(LAYERS as u32)),
            (key("feed_forward_length"), Value::U32(HIDDEN as u32)),
            (key("attention.head_count"), Value::U32(HEADS as u32)),
            (key("attention.layer_norm_epsilon"), Value::F32(EPSILON as f32)),
            (key("pooling_type"), Value::U32(2)),
        ];
        if self.kind == Kind::Nomic {
            keys.push((key("rope.freq_base"), Value::F32(ROPE_BASE)));
        }
        write_gguf(&keys, &self.stored())
    }

    fn get(&self, name: &str) -> Option<&[f32]> {
        self.tensors.get(name).map(|(_, _, values)| values.as_slice())
    }

    /// w x + b, of a matrix that may lack a bias.
    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (rows, columns, weights) = &self.tensors[&format!("{name}.weight")];
        let bias = self.get(&format!("{name}.bias"));
        assert_eq!(x.len(), *columns);
        (0..*rows)
            .map(|row| {
                let products = weights[row * columns..]
                    .iter()
                    .zip(x)
                    .map(|(&w, &x)| f64::from(w) * x);
                products.sum::<f64>() + bias.map_or(0.0, |bias| f64::from(bias[row]))
            })
            .collect()
    }

    fn norm(&self, name: &str, x: &mut [f64]) {
        let (weight, bias) = (
            self.get(&format!("{name}.weight")).unwrap(),
            self.get(&format!("{name}.bias")).unwrap(),
        );
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        for (i, x) in x.iter_mut().enumerate() {
            let unit = (*x - mean) / (variance + EPSILON).sqrt();
            *x = unit * f64::from(weight[i]) + f64::from(bias[i]);
        }
    }

    /// The vectors of the tokens of one document.
    pub fn forward(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        let embedding = self.get("token_embd.weight").unwrap();
        let types = self.get("token_types.weight").unwrap();
        let positions = self.get("position_embd.weight");
        let mut x: Vec<Vec<f64>> = Vec::new();
        for (position, &token) in tokens.iter().enumerate() {
            let value = |i: usize| {
                let place = positions.map_or(0.0, |table| f64::from(table[position * WIDTH + i]));
                f64::from(embedding[token as usize * WIDTH + i]) + place + f64::from(types[i])
            };
            x.push((0..WIDTH).map(value).collect());
        }
        x.iter_mut().for_each(|x| self.norm("token_embd_norm", x));
        for layer in 0..LAYERS {
            let name = |part: &str| format!("blk.{layer}.{part}");
            let all =
                |part: &str| -> Vec<Vec<f64>> { x.iter().map(|x| self.linear(&name(part), x)).collect() };
            let (mut q, mut k, v) = (all("attn_q"), all("attn_k"), all("attn_v"));
            if self.kind == Kind::Nomic {
                for rows in [&mut q, &mut k] {
                    rows.iter_mut()
                        .enumerate()
                        .for_each(|(position, row)| rotate(row, position));
                }
            }
            for (row, attended) in attention(&q, &k, &v).into_iter().enumerate() {
                let y = self.linear(&name("attn_output"), &attended);
                x[row].iter_mut().zip(y).for_each(|(x, y)| *x += y);
            }
            for x in &mut x {
                self.norm(&name("attn_output_norm"), x);
                let up = self.linear(&name("ffn_up"), x);
                let hidden: Vec<f64> = if self.kind == Kind::Nomic {
                    let gate = self.linear(&name("ffn_gate"), x);
                    up.iter()
                        .zip(gate)
                        .map(|(up, gate)| up * gate / (1.0 + (-gate).exp()))
                        .collect()
                } else {
                    up.iter()
                        .map(|x| 0.5 * x * libm::erfc(-x / std::f64::consts::SQRT_2))
                        .collect()
                };
                let y = self.linear(&name("ffn_down"), &hidden);
                x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
                self.norm(&name("layer_output_norm"), x);
            }
        }
        x
    }
}

/// Rotates the halves of every head.
fn rotate(row: &mut [f64], position: usize) {
    let size = WIDTH / HEADS;
    for head in row.chunks_exact_mut(size) {
        for i in 0..size / 2 {
            let angle = position as f64 * f64::from(ROPE_BASE).powf(-2.0 * i as f64 / size as f64);
            let (a, b) = (head[i], head[i + size / 2]);
            head[i] = a * angle.cos() - b * angle.sin();
            head[i + size / 2] = b * angle.cos() + a * angle.sin();
        }
    }
}

fn attention(q: &[Vec<f64>], k: &[Vec<f64>], v: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let size = WIDTH / HEADS;
    let mut output = vec![vec![0.0; WIDTH]; q.len()];
    for head in 0..HEADS {
        let part = head * size..(head + 1) * size;
        for (q, output) in q.iter().zip(&mut output) {
            let score = |k: &Vec<f64>| -> f64 {
                let products = q[part.clone()].iter().zip(&k[part.clone()]).map(|(q, k)| q * k);
                products.sum::<f64>() / (size as f64).sqrt()
            };
            let scores: Vec<f64> = k.iter().map(score).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for (weight, v) in weights.iter().zip(v) {
                for i in part.clone() {
                    output[i] += weight / sum * v[i];
                }
            }
        }
    }
    output
}

/// A GGUF file of F32 tensors.
pub fn write_gguf(keys: &[(String, Value)], tensors: &BTreeMap<String, (usize, usize, Vec<f32>)>) -> Vec<u8> {
    let mut writer = Writer::new(tensors.len() as u64, keys.len() as u64);
    for (key, value) in keys {
        writer = writer.entry(key, value);
    }
    let mut offset = 0;
    for (name, (rows, columns, values)) in tensors {
        let shape = match rows {
            1 => vec![*columns as u64],
            _ => vec![*columns as u64, *rows as u64],
        };
        writer = writer.tensor(name, &shape, 0, offset);
        offset += (4 * values.len()).next_multiple_of(32) as u64;
    }
    for (_, _, values) in tensors.values() {
        writer = writer.pad(32);
        values
            .iter()
            .for_each(|value| writer.bytes.extend(value.to_le_bytes()));
    }
    writer.pad(32).bytes
}
