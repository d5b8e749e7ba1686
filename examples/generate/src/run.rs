//! One run: prompt in, greedy tokens out, a report at the end.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::attention::Attention;
use crate::llama::Llama;
use crate::text::Vocabulary;
use crate::text::stream::Utf8Stream;

/// Most prompt tokens that run through the model at once: enough for the matrix products to be
/// efficient, few enough for buffers to stay small.
pub const MAX_ROWS: usize = 64;

/// What `--json` prints, in this order.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Tokens of the prompt, special ones included.
    pub prompt_ids: Vec<u32>,
    /// Tokens generated; the last one is a stop token if the model ended its answer.
    pub ids: Vec<u32>,
    /// The text of `ids`; control tokens have none.
    pub text: String,
    /// Kernel launches.
    pub launches: u64,
    /// Faults found in them.
    pub findings: u64,
    /// Wall time of attention and KV writes.
    pub seconds_attention: f64,
    /// Wall time from the first prompt token to the last generated one.
    pub seconds_total: f64,
}

impl Report {
    /// The line that ends a run.
    pub fn summary(&self) -> String {
        let (prompt, made) = (self.prompt_ids.len(), self.ids.len());
        format!(
            "{prompt} prompt tokens, {made} generated in {:.2} s, {:.1} tokens/s; attention {:.2} s, \
             {} launches, {} findings",
            self.seconds_total,
            made as f64 / self.seconds_total.max(f64::EPSILON),
            self.seconds_attention,
            self.launches,
            self.findings
        )
    }
}

/// Generates until a stop token or `tokens` tokens, handing text to `emit` as it is made.
///
/// The report is there even if the run failed: it says how far the run came, and how many
/// faults the emulator found.
pub fn generate(
    model: &Llama,
    vocabulary: &Vocabulary,
    prompt_ids: Vec<u32>,
    tokens: usize,
    attention: &mut dyn Attention,
    emit: impl FnMut(&str) -> Result<()>,
) -> (Report, Result<()>) {
    let start = Instant::now();
    let mut answer = Answer { ids: Vec::new(), text: String::new(), emit };
    let result = answer.write(model, vocabulary, &prompt_ids, tokens, attention);
    let stats = attention.stats();
    let report = Report {
        prompt_ids,
        ids: answer.ids,
        text: answer.text,
        launches: stats.launches,
        findings: stats.findings,
        seconds_attention: stats.seconds,
        seconds_total: start.elapsed().as_secs_f64(),
    };
    (report, result)
}

/// What has been generated so far.
struct Answer<E> {
    ids: Vec<u32>,
    text: String,
    emit: E,
}

impl<E: FnMut(&str) -> Result<()>> Answer<E> {
    fn write(
        &mut self,
        model: &Llama,
        vocabulary: &Vocabulary,
        prompt_ids: &[u32],
        tokens: usize,
        attention: &mut dyn Attention,
    ) -> Result<()> {
        let mut position = 0;
        let mut logits = Vec::new();
        for rows in prompt_ids.chunks(MAX_ROWS) {
            logits = model.forward(rows, position..position + rows.len(), attention)?;
            position += rows.len();
        }
        let mut stream = Utf8Stream::default();
        while self.ids.len() < tokens {
            if let Some(&last) = self.ids.last() {
                logits = model.forward(&[last], position..position + 1, attention)?;
                position += 1;
            }
            let id = argmax(&logits).with_context(|| format!("after {position} tokens"))?;
            self.ids.push(id);
            if vocabulary.is_stop(id) {
                break;
            }
            self.say(stream.push(vocabulary.bytes(id)))?;
        }
        self.say(stream.finish())
    }

    fn say(&mut self, text: String) -> Result<()> {
        (self.emit)(&text)?;
        self.text.push_str(&text);
        Ok(())
    }
}

/// The first of the largest logits.
fn argmax(logits: &[f32]) -> Result<u32> {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in (0..).zip(logits) {
        ensure!(logit.is_finite(), "the logit of token {id} is {logit}");
        if logit > best.1 {
            best = (id, logit);
        }
    }
    Ok(best.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_takes_the_first_maximum_and_refuses_nan() {
        assert_eq!(argmax(&[-3.0, 2.0, 2.0, -9.0]).unwrap(), 1);
        let error = argmax(&[0.0, f32::NAN]).unwrap_err().to_string();
        assert_eq!(error, "the logit of token 1 is NaN");
        assert!(argmax(&[f32::INFINITY]).is_err());
    }

    #[test]
    fn json_has_the_promised_keys_in_order() {
        let report = Report {
            prompt_ids: vec![1],
            ids: vec![2, 3],
            text: "a\n".into(),
            launches: 4,
            findings: 0,
            seconds_attention: 0.5,
            seconds_total: 1.0,
        };
        let want = r#"{"prompt_ids":[1],"ids":[2,3],"text":"a\n","launches":4,"findings":0,"seconds_attention":0.5,"seconds_total":1.0}"#;
        assert_eq!(serde_json::to_string(&report).unwrap(), want);
        assert!(report.summary().contains("2.0 tokens/s; attention 0.50 s, 4 launches"));
    }
}
