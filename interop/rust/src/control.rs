//! Lines in, lines out: commands are run one by one, and each gets its reply.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::commands::Commands;

/// What a command found out: fields for its reply.
pub type Message = Map<String, Value>;

/// A command's result.
pub type Reply = Result<Message, Failure>;

/// Why a command failed, and what it found out nevertheless.
#[derive(Debug)]
pub struct Failure {
    pub text: String,
    pub fields: Message,
}

impl<T: Into<String>> From<T> for Failure {
    fn from(text: T) -> Self {
        let (text, fields) = (text.into(), Message::new());
        Self { text, fields }
    }
}

/// The fields of a JSON object.
pub fn fields(value: Value) -> Message {
    match value {
        Value::Object(map) => map,
        other => panic!("expected an object, got {other}"),
    }
}

/// Standard output, or anything else to write to, for whole lines from any task.
#[derive(Clone)]
pub struct Output(Arc<Mutex<dyn Write + Send>>);

impl Default for Output {
    fn default() -> Self {
        Self::new(std::io::stdout())
    }
}

impl Output {
    pub fn new(to: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(to)))
    }

    /// Prints one message. That nobody reads any more is no error: the end of the input comes with it.
    pub fn send(&self, message: Value) {
        let mut to = self.0.lock().unwrap_or_else(|error| error.into_inner());
        let _ = to
            .write_all(format!("{message}\n").as_bytes())
            .and_then(|()| to.flush());
    }
}

/// Runs commands until the end of the input.
pub async fn run(commands: &Commands, output: &Output) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [name, args @ ..] = &words[..] {
            output.send(reply(name, commands.run(name, args).await));
        }
    }
}

fn reply(name: &str, result: Reply) -> Value {
    let (mut message, error) = match result {
        Ok(message) => (message, None),
        Err(failure) => (failure.fields, Some(failure.text)),
    };
    message.insert("reply".into(), json!(name));
    message.insert("ok".into(), json!(error.is_none()));
    if let Some(error) = error {
        message.insert("error".into(), json!(error));
    }
    Value::Object(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_names_its_command() {
        let good = reply("ping", Ok(fields(json!({"rtt_us": [1.5]}))));
        assert_eq!(good, json!({"reply": "ping", "ok": true, "rtt_us": [1.5]}));
        let bad = reply("ping", Err("not connected".into()));
        assert_eq!(
            bad,
            json!({"reply": "ping", "ok": false, "error": "not connected"})
        );
    }
}
