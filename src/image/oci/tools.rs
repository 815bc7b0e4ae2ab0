//! [`file`]: makes the tools file for a container image, from the given tools file and the image's configuration.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    EntrypointTool,
    documents::Execution,
    error::ContainerError,
    execution::{Root, TOOL, User, environment},
};

/// The search path if the image's environment has none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Adds the image's defaults and its entry point to the tools file `given`; `None` if the result would be empty.
/// Settings in `given` take precedence over the image's. The working directory of tools is created in `root`.
pub(super) fn file(
    given: Option<&[u8]>,
    execution: &Execution,
    entrypoint: Option<&EntrypointTool>,
    root: &mut Root<'_>,
) -> Result<Option<Vec<u8>>, ContainerError> {
    let parse = |bytes| super::documents::parse::<Map<String, Value>>(bytes, "tools file");
    let mut file = given.map(parse).transpose()?.unwrap_or_default();
    let mut defaults = match file.remove("defaults") {
        Some(Value::Object(defaults)) => defaults,
        _ => Map::new(),
    };
    let mut env = environment(execution)?;
    if let Some(Value::Object(given)) = defaults.remove("env") {
        let text = |value: Value| value.as_str().map(str::to_owned);
        env.extend(
            given
                .into_iter()
                .filter_map(|(name, value)| Some((name, text(value)?))),
        );
    }
    if let Some(tool) = entrypoint {
        let tools = file.entry("tools").or_insert_with(|| json!({}));
        let declared = declared(tool, execution, &env, root)?;
        if let Value::Object(tools) = tools
            && tools.insert(tool.name.clone(), declared).is_some()
        {
            return Err(ContainerError::Entrypoint {
                problem: "the tools file has a tool of this name",
            });
        }
    }
    if !env.is_empty() {
        defaults.insert("env".to_owned(), json!(env));
    }
    let user = match defaults.get("user") {
        Some(given) => user_of(given),
        None => root.user(execution)?.inspect(|User { uid, gid }| {
            defaults.insert("user".to_owned(), json!({"uid": uid, "gid": gid}));
        }),
    };
    let image_directory = execution.working_dir.as_deref().unwrap_or_default();
    if !defaults.contains_key("cwd") && !image_directory.is_empty() {
        defaults.insert("cwd".to_owned(), json!(image_directory));
    }
    if let Some(directory) = defaults.get("cwd").and_then(Value::as_str) {
        root.prepare_directory(directory, user.unwrap_or(TOOL))?;
    }
    if !defaults.is_empty() {
        file.insert("defaults".to_owned(), Value::Object(defaults));
    }
    if file.is_empty() && given.is_none() {
        return Ok(None);
    }
    Ok(Some(Value::Object(file).to_string().into_bytes()))
}

/// The user in a valid tools file.
fn user_of(given: &Value) -> Option<User> {
    let number = |field| u32::try_from(given.get(field)?.as_u64()?).ok();
    Some(User {
        uid: number("uid")?,
        gid: number("gid")?,
    })
}

/// The declaration of the image's entry point as a tool. The tool's arguments replace the image's own arguments
/// (`Cmd`), as the arguments after the image in `docker run` do.
fn declared(
    tool: &EntrypointTool,
    execution: &Execution,
    env: &BTreeMap<String, String>,
    root: &mut Root<'_>,
) -> Result<Value, ContainerError> {
    let refused = |problem| ContainerError::Entrypoint { problem };
    let some = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let (entrypoint, command) = (some(&execution.entrypoint), some(&execution.cmd));
    let mut words = match (entrypoint.is_empty(), tool.arguments.is_empty()) {
        (true, _) => command,
        (false, true) => [entrypoint, command].concat(),
        (false, false) => entrypoint,
    };
    if words.is_empty() {
        return Err(refused("the image has neither Entrypoint nor Cmd"));
    }
    let path = env.get("PATH").map_or(PATH, String::as_str);
    let program = root
        .program(&words.remove(0), path)
        .ok_or_else(|| refused("its program is not in the image, or not executable"))?;
    if words.iter().any(|word| word.contains(['{', '}'])) {
        return Err(refused(
            "an argument has a brace in it, which stands for a parameter",
        ));
    }
    words.extend(tool.arguments.iter().map(|name| format!("{{{name}}}")));
    Ok(json!({"program": program, "arguments": words}))
}
