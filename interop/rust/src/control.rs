//! Lines in, lines out: commands are run one by one, and each gets its reply.

use std::io::{self, BufRead, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::commands::Commands;

/// A client of --control that doesn't read for so long is taken for gone.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

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

/// Standard output (or whatever stands in its place), or the client of --control while there is one, for whole lines
/// from any task.
#[derive(Clone)]
pub struct Output(Arc<Mutex<Reader>>);

/// Who reads what is put out.
struct Reader {
    own: Box<dyn Write + Send>,
    client: Option<TcpStream>,
}

impl Default for Output {
    fn default() -> Self {
        Self::new(io::stdout())
    }
}

impl Output {
    pub fn new(own: impl Write + Send + 'static) -> Self {
        let (own, client) = (Box::new(own), None);
        Self(Arc::new(Mutex::new(Reader { own, client })))
    }

    /// Writes one message. That nobody reads any more is no error: the end of the input comes with it.
    pub fn send(&self, message: Value) {
        let mut reader = self.0.lock().unwrap_or_else(|error| error.into_inner());
        let line = format!("{message}\n");
        match reader.client.as_mut() {
            Some(stream) => {
                if stream.write_all(line.as_bytes()).is_err() {
                    // half a line may be out: nothing after it would be understood
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                }
            }
            None => {
                let _ = reader
                    .own
                    .write_all(line.as_bytes())
                    .and_then(|()| reader.own.flush());
            }
        }
    }

    fn to(&self, client: Option<TcpStream>) {
        let mut reader = self.0.lock().unwrap_or_else(|error| error.into_inner());
        reader.client = client;
    }
}

/// Runs commands until the end of the input.
pub async fn run(commands: &Commands, output: &Output) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        answer(&line, commands, output).await;
    }
}

/// Runs the commands of whoever connects with `addr`, one client after the other. A client is sent `hello` first, then
/// its replies and the events, which go to standard output while there is none. Ends with an error only.
pub async fn serve(
    addr: &str,
    hello: &Value,
    commands: &Commands,
    output: &Output,
) -> io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    loop {
        let client = listener.accept().await?.0.into_std()?;
        client.set_nonblocking(false)?;
        client.set_write_timeout(Some(CLIENT_TIMEOUT))?;
        output.to(Some(client.try_clone()?));
        output.send(hello.clone());
        let (sender, mut lines) = mpsc::channel::<String>(1);
        tokio::task::spawn_blocking(move || {
            let read = io::BufReader::new(client).lines().map_while(Result::ok);
            for line in read {
                if sender.blocking_send(line).is_err() {
                    break;
                }
            }
        });
        while let Some(line) = lines.recv().await {
            answer(&line, commands, output).await;
        }
        output.to(None);
    }
}

async fn answer(line: &str, commands: &Commands, output: &Output) {
    let words: Vec<&str> = line.split_whitespace().collect();
    if let [name, args @ ..] = &words[..] {
        output.send(reply(name, commands.run(name, args).await));
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
