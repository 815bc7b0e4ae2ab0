//! `chv-sandbox api`: makes one call to a VMM's API and prints the answer.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use chv_sandbox::api::{Operation, Request};
use chv_sandbox::client::{self, BODY_LIMIT, Client, ErrorKind};
use chv_sandbox::sanitize;

use super::interrupt::Interrupt;
use super::status::{self, Status};
use super::{Failure, usage};

/// Makes one call to a VMM's API over its api-socket, and prints the answer.
#[derive(clap::Args)]
#[command(after_help = status::help(&[
    (Status::Yes, "the VMM carried out the operation"),
    (Status::Undecided, "the request was not sent, the VMM refused it, or no answer came"),
]))]
pub(crate) struct Args {
    /// List all operations: method, name, whether it takes a body, and the releases that have it if not all do.
    #[arg(long, exclusive = true)]
    list: bool,
    /// The VMM's api-socket.
    #[arg(long, required_unless_present = "list")]
    socket: Option<PathBuf>,
    /// The operation, named as in the VMM's API document, for example vmm.ping or vm.info.
    #[arg(required_unless_present = "list", value_parser = operation)]
    operation: Option<Operation>,
    /// The file with the JSON body of the request; - reads standard input.
    #[arg(long, value_name = "FILE|-")]
    body: Option<PathBuf>,
    /// Send the request without checks
    ///
    /// The checks refuse fields that the VMM's release would ignore, a body that the operation does not take, and a
    /// call without a body that it needs.
    #[arg(long)]
    unchecked: bool,
}

/// Runs `chv-sandbox api`.
pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    // Without `--list`, clap requires both.
    let (Some(socket), Some(operation)) = (args.socket, args.operation) else {
        list();
        return Ok(Status::Yes);
    };
    if !args.unchecked {
        check_body(operation, args.body.as_deref())?;
    }
    let body = args.body.as_deref().map(read_body).transpose()?;
    if let (Some(body), Some(path), false) = (&body, &args.body, args.unchecked)
        && body.is_empty()
    {
        let path = path.display();
        return Err(format!("the body in {path} is empty, and {operation} needs JSON").into());
    }
    let client = Client::new(socket)?;
    let request = Request::raw(operation, body);
    let request = match args.unchecked {
        true => request.unchecked(),
        false => request,
    };
    let interrupt = Interrupt::catch()?;
    let answered = interrupt.race(client.send(request)).await?;
    if let Some(answer) = answered.map_err(advise)? {
        println!("{}", sanitize::json(&format!("{answer:#}")));
    }
    Ok(Status::Yes)
}

/// Refuses a body that the operation does not take, and a call without a body if the operation takes one, because all
/// of those need it.
fn check_body(operation: Operation, body: Option<&Path>) -> Result<(), Failure> {
    match (operation.takes_body(), body) {
        (true, None) => Err(usage(
            "api",
            format_args!(
                "{operation} needs a body: give a JSON file with --body FILE, or use --body - for standard input"
            ),
        )),
        (false, Some(_)) => Err(usage(
            "api",
            format_args!(
                "{operation} takes no body: leave out --body, or send it anyway with --unchecked"
            ),
        )),
        _ => Ok(()),
    }
}

/// The error for a request that the VMM's release would partly ignore, with the option that sends it anyway.
#[derive(Debug, thiserror::Error)]
#[error("{0}; `--unchecked` sends it anyway")]
struct Unsupported(client::Error);

fn advise(error: client::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotSupported { .. } => Unsupported(error).into(),
        _ => error.into(),
    }
}

fn list() {
    for operation in Operation::ALL {
        let body = if operation.takes_body() { "body" } else { "" };
        let support = match operation.support() {
            support if support.is_universal() => String::new(),
            support => support.to_string(),
        };
        let method = operation.method().as_str();
        let line = format!("{method}  {:<24}  {body:<4}  {support}", operation.name());
        println!("{}", line.trim_end());
    }
}

fn operation(name: &str) -> Result<Operation, String> {
    name.parse().map_err(|_| {
        let near = near(name);
        match near.is_empty() {
            true => "no such operation; `chv-sandbox api --list` lists them all".to_owned(),
            false => format!("no such operation; similar names: {}", near.join(", ")),
        }
    })
}

/// The operations with similar names: those with a word whose first three letters equal those of a word in `name`.
fn near(name: &str) -> Vec<&'static str> {
    let begin_alike =
        |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count() >= 3;
    Operation::ALL
        .iter()
        .map(|operation| operation.name())
        .filter(|known| {
            known.split(['.', '-']).skip(1).any(|word| {
                name.split(['.', '-', '_'])
                    .any(|meant| begin_alike(word, meant))
            })
        })
        .collect()
}

/// Reads the body. Reads at most one byte more than the server accepts, to detect a larger one.
fn read_body(path: &Path) -> Result<Bytes, Failure> {
    let limit = BODY_LIMIT as u64 + 1;
    let mut body = Vec::new();
    let read = match path.to_str() {
        Some("-") => io::stdin().lock().take(limit).read_to_end(&mut body),
        _ => File::open(path).and_then(|file| file.take(limit).read_to_end(&mut body)),
    };
    read.map_err(|error| format!("the body can't be read from {}: {error}", path.display()))?;
    if body.len() > BODY_LIMIT {
        return Err(format!(
            "the body in {} has more than {BODY_LIMIT} bytes, and the server reads no more than that",
            path.display()
        )
        .into());
    }
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_operation_is_answered_with_near_ones() {
        let check = |name: &str, expected: &[&str]| assert_eq!(near(name), expected, "{name}");
        check("info", &["vm.info"]);
        check("vm.snap", &["vm.snapshot"]);
        check("vm_boot", &["vm.boot"]);
        check("ping", &["vmm.ping"]);
        check("vm.shutdwn", &["vm.shutdown", "vmm.shutdown"]);
        check("vm.é€x", &[]);
        check("", &[]);
    }
}
