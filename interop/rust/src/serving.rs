//! What is answered on the streams of signed messages that peers open, one by one: while a write waits no more is read.
//!
//! A request's type says what is done:
//!
//! ```text
//! 1  the same payload                     3  an error answer
//! 2  "N INDEX": "INDEX", once N are       4  "COUNT SIZE": so many parts, byte i & 0xff of each repeated
//!    held, the last first                 5  no answer
//! ```

use futures::io::BufReader;
use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::envelope::{ERROR_TYPE, Message, ONE_WAY, REQUEST, RESPONSE};
use crate::messages::{Ended, MAX_MESSAGE, Messages, To, send};
use crate::rules::{Reason, Rejection};

pub const ECHO: u32 = 1;
pub const REVERSED: u32 = 2;
pub const ERROR: u32 = 3;
pub const PARTS: u32 = 4;
pub const SILENCE: u32 = 5;

/// How many requests of type 2 are held.
pub const MAX_REVERSED: usize = 1 << 12;

/// Serves until the peer's proper end. A stream that isn't closed is reset when it is dropped.
pub async fn serve(messages: &Messages, stream: impl AsyncRead + AsyncWrite + Unpin, from: To<'_>) {
    let mut server = Server {
        messages,
        stream: BufReader::new(stream),
        from,
        held: Vec::new(),
    };
    match server.serve().await {
        Ended::Properly => {
            let _ = server.stream.close().await;
        }
        ended => messages.tell_end(from, &ended),
    }
}

struct Server<'a, S> {
    messages: &'a Messages,
    stream: BufReader<S>,
    from: To<'a>,
    held: Vec<Message>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Server<'_, S> {
    async fn serve(&mut self) -> Ended {
        loop {
            let message = match self.messages.receive(&mut self.stream, self.from).await {
                Ok(message) => message,
                Err(ended) => return ended,
            };
            match message.kind {
                ONE_WAY => self.messages.tell_message(self.from, &message),
                REQUEST => {
                    if let Err(error) = self.answer(message).await {
                        return Ended::Lost(error);
                    }
                }
                _ => {
                    let id = message.request_id;
                    let text = format!("an answer, to {id}, on the peer's own stream");
                    let rejection = Rejection::new(Reason::Unasked, text);
                    self.messages.tell(self.from, &rejection);
                }
            }
        }
    }

    async fn answer(&mut self, request: Message) -> Result<(), String> {
        match request.of_type {
            ECHO => {
                let payload = request.payload.clone();
                self.reply(&request, ECHO, payload, false).await
            }
            REVERSED => self.hold(request).await,
            ERROR => {
                let said = String::from_utf8_lossy(&request.payload);
                self.fail(&request, format!("no such thing: {said}")).await
            }
            PARTS => self.parts(&request).await,
            SILENCE => Ok(()),
            other => self.fail(&request, format!("no such type: {other}")).await,
        }
    }

    async fn hold(&mut self, request: Message) -> Result<(), String> {
        let count = match pair(&request.payload, MAX_REVERSED) {
            Ok((count, _)) => count,
            Err(error) => return self.fail(&request, error).await,
        };
        self.held.push(request);
        if self.held.len() < count {
            return Ok(());
        }
        while let Some(request) = self.held.pop() {
            let index = request.payload.split(|byte| *byte == b' ').nth(1);
            let index = index.unwrap_or_default().to_vec();
            self.reply(&request, REVERSED, index, false).await?;
        }
        Ok(())
    }

    async fn parts(&mut self, request: &Message) -> Result<(), String> {
        let (count, size) = match pair(&request.payload, MAX_MESSAGE / 2) {
            Ok((count, size)) if count > 0 => (count, size),
            _ => {
                let said = String::from_utf8_lossy(&request.payload);
                let text = format!("expected COUNT SIZE, got {said:?}");
                return self.fail(request, text).await;
            }
        };
        for i in 0..count {
            let part = vec![i as u8; size];
            self.reply(request, PARTS, part, i < count - 1).await?;
        }
        Ok(())
    }

    async fn fail(&mut self, request: &Message, text: String) -> Result<(), String> {
        self.reply(request, ERROR_TYPE, text.into_bytes(), false)
            .await
    }

    async fn reply(
        &mut self,
        request: &Message,
        of_type: u32,
        payload: Vec<u8>,
        more: bool,
    ) -> Result<(), String> {
        let mut answer = self.messages.compose(self.from, RESPONSE, of_type, payload);
        (answer.request_id, answer.more) = (request.request_id, more);
        send(&mut self.stream, &self.messages.seal(&answer)?).await
    }
}

/// Two counts of at most `bound`.
pub fn pair(text: &[u8], bound: usize) -> Result<(usize, usize), String> {
    let words = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.split_once(' '));
    let parse = |word: &str| word.parse().ok().filter(|count| *count <= bound);
    words
        .and_then(|(first, second)| Some((parse(first)?, parse(second)?)))
        .ok_or_else(|| {
            let said = String::from_utf8_lossy(text);
            format!("expected two counts of at most {bound}, got {said:?}")
        })
}
