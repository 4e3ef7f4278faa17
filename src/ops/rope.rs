//! Tables of the angles of rotary position embedding (Su et al. 2021).

use crate::base::error::{Error, Result};

/// Positions from one exact angle to the next; between them each row is the one before, turned by one step.
const RESTART: usize = 256;

/// Fills `[position][dims / 2]` tables: angle(position, i) = position / scale * base^(-2 i / dims).
pub fn fill_tables(dims: usize, base: f32, scale: f32, cosine: &mut [f32], sine: &mut [f32]) -> Result<()> {
    let mut frequencies = reserved(dims / 2)?;
    let frequency = |i: usize| libm::pow(f64::from(base), -2.0 * i as f64 / dims as f64) / f64::from(scale);
    frequencies.extend((0..dims / 2).map(frequency));
    fill_tables_of(&frequencies, 1.0, cosine, sine)
}

fn reserved<T>(count: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(count)
        .map_err(|_| Error::no_memory(format!("cannot allocate {count} frequencies")))?;
    Ok(list)
}

/// Fills `[position][frequency]` tables: cos and sin of position * frequency, times `magnitude`.
///
/// In f64 by a library whose results do not depend on the system; the error, below 1e-13, does not reach f32.
pub fn fill_tables_of(
    frequencies: &[f64],
    magnitude: f64,
    cosine: &mut [f32],
    sine: &mut [f32],
) -> Result<()> {
    let half = frequencies.len();
    let mut steps = reserved(half)?;
    steps.extend(frequencies.iter().map(|&frequency| Step {
        frequency,
        turn: (libm::cos(frequency), libm::sin(frequency)),
        now: (1.0, 0.0),
    }));
    let rows = cosine.chunks_exact_mut(half).zip(sine.chunks_exact_mut(half));
    for (position, (cosine, sine)) in rows.enumerate() {
        for (step, (cosine, sine)) in steps.iter_mut().zip(cosine.iter_mut().zip(sine)) {
            if position % RESTART == 0 {
                let angle = position as f64 * step.frequency;
                step.now = (libm::cos(angle), libm::sin(angle));
            }
            let ((c, s), (dc, ds)) = (step.now, step.turn);
            *cosine = (magnitude * c) as f32;
            *sine = (magnitude * s) as f32;
            step.now = (c * dc - s * ds, s * dc + c * ds);
        }
    }
    Ok(())
}

/// One frequency.
struct Step {
    frequency: f64,
    /// cos and sin of one step.
    turn: (f64, f64),
    /// cos and sin at the position that is written next.
    now: (f64, f64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_those_of_the_formula() {
        let (mut cosine, mut sine) = (vec![0.0; 700 * 8], vec![0.0; 700 * 8]);
        fill_tables(16, 10_000.0, 2.0, &mut cosine, &mut sine).unwrap();
        for position in [0, 1, 255, 256, 257, 699] {
            for i in 0..8 {
                let angle = position as f64 / 2.0 * 10_000f64.powf(-2.0 * i as f64 / 16.0);
                assert!((f64::from(cosine[position * 8 + i]) - angle.cos()).abs() < 1e-7);
                assert!((f64::from(sine[position * 8 + i]) - angle.sin()).abs() < 1e-7);
            }
        }
    }

    #[test]
    fn frequencies_and_magnitude_may_be_given() {
        let (mut cosine, mut sine) = (vec![0.0; 300 * 2], vec![0.0; 300 * 2]);
        fill_tables_of(&[0.5, 0.003], 1.25, &mut cosine, &mut sine).unwrap();
        for position in [0, 7, 299] {
            for (i, frequency) in [0.5, 0.003].into_iter().enumerate() {
                let angle = position as f64 * frequency;
                assert!((f64::from(cosine[position * 2 + i]) - 1.25 * angle.cos()).abs() < 1e-6);
                assert!((f64::from(sine[position * 2 + i]) - 1.25 * angle.sin()).abs() < 1e-6);
            }
        }
    }
}
