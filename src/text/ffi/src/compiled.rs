//! A template compiled once: minijinja's instructions with Python's operators, and raw text that is charged.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::machinery::{tokenize, CompiledTemplate, Instruction, Instructions, TemplateConfig, Token};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Value};

use crate::error::{data_loss, internal, Result};
use crate::tags::replace_generation_tags;
use crate::template::located;

/// Published templates have under 20 KiB.
const MAX_SOURCE_BYTES: usize = 256 << 10;
/// What constant expressions may become, and what computing them may cost, in bytes.
const MAX_CONSTANT_BYTES: usize = 16 << 20;
const MAX_CONSTANT_WORK: usize = 1 << 30;
/// Raw text up to this size is not charged: FUEL times it is 32 MiB.
const SHORT_TEXT: usize = 16;

pub struct Compiled {
    // The instructions borrow from `_source`: they are dropped before it and lent out for no longer than `self`.
    instructions: Instructions<'static>,
    blocks: BTreeMap<&'static str, Instructions<'static>>,
    _source: Arc<str>,
}

impl Compiled {
    pub fn new(source: &[u8]) -> Result<Self> {
        if source.len() > MAX_SOURCE_BYTES {
            let message = format!("the chat template has {} bytes, limit {MAX_SOURCE_BYTES}", source.len());
            return Err(data_loss(message));
        }
        let source = std::str::from_utf8(source).map_err(|e| {
            data_loss(format!("the chat template is not valid UTF-8 at byte {}", e.valid_up_to()))
        })?;
        let source: Arc<str> = replace_generation_tags(source).into();
        check_constants(&source)?;
        // SAFETY: an Arc's text does not move, and `_source` keeps it for as long as anything borrows from it.
        let text: &'static str = unsafe { &*Arc::as_ptr(&source) };
        let config = TemplateConfig {
            syntax_config: syntax()?,
            default_auto_escape: Arc::new(|_: &str| AutoEscape::None),
        };
        let compiled = CompiledTemplate::new("chat_template", text, &config)
            .map_err(|e| data_loss(format!("the chat template cannot be compiled: {}", located(&e))))?;
        let blocks = compiled.blocks.iter().map(|(name, block)| Ok((*name, rewrite(block)?)));
        Ok(Compiled {
            instructions: rewrite(&compiled.instructions)?,
            blocks: blocks.collect::<Result<_>>()?,
            _source: source,
        })
    }

    pub fn instructions(&self) -> &Instructions<'_> {
        &self.instructions
    }

    pub fn blocks<'a>(&'a self) -> &'a BTreeMap<&'a str, Instructions<'a>> {
        &self.blocks
    }
}

fn syntax() -> Result<SyntaxConfig> {
    SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(|e| internal(format!("template syntax: {e}")))
}

/// minijinja computes constant expressions while it compiles, without a limit that would help here. The literals of a
/// tag times its numbers (if it multiplies) bound what they become.
fn check_constants(source: &str) -> Result<()> {
    // Of one tag: bytes of its literals, product of its numbers, `+`, `~` and `*`, and whether it has a text or list.
    let (mut size, mut factor, mut operators, mut texts, mut multiplies) = (0, 1.0f64, 0, false, false);
    let (mut total, mut cost) = (0.0, 0.0);
    for token in tokenize(source, false, syntax()?) {
        let Ok((token, _)) = token else { break }; // the parser says what is wrong
        match &token {
            Token::VariableStart | Token::BlockStart => {
                (size, factor, operators, texts, multiplies) = (0, 1.0, 0, false, false)
            }
            Token::VariableEnd | Token::BlockEnd => {
                let grown = size as f64 * if texts && multiplies { factor } else { 1.0 };
                total += grown;
                cost += grown * operators as f64;
            }
            Token::Str(text) => (size, texts) = (size + text.len(), true),
            Token::String(text) => (size, texts) = (size + text.len(), true),
            Token::BracketOpen | Token::ParenOpen | Token::Comma => (size, texts) = (size + 32, true),
            Token::Int(n) => factor *= (*n as f64).max(1.0),
            Token::Int128(n) => factor *= (**n as f64).max(1.0),
            Token::Float(x) => factor *= x.max(1.0),
            Token::Mul => (operators, multiplies) = (operators + 1, true),
            Token::Plus | Token::Tilde => operators += 1,
            _ => {}
        }
        if total > MAX_CONSTANT_BYTES as f64 || cost > MAX_CONSTANT_WORK as f64 {
            return Err(data_loss(format!(
                "the chat template has a constant expression that may need more than {} MiB of memory",
                MAX_CONSTANT_BYTES >> 20
            )));
        }
    }
    Ok(())
}

/// The same program with functions of operators.rs as operators, and with long raw text emitted as a value, so that
/// the formatter charges it. That takes two instructions: jumps are moved accordingly.
fn rewrite<'a>(old: &Instructions<'a>) -> Result<Instructions<'a>> {
    let all = || (0..).map_while(|i| old.get(i));
    let is_long = |i: &Instruction| matches!(i, Instruction::EmitRaw(text) if text.len() > SHORT_TEXT);
    let mut places = vec![0];
    for instruction in all() {
        places.push(places[places.len() - 1] + 1 + u32::from(is_long(instruction)));
    }
    let place = |target: u32| places[target as usize];
    let mut new = Instructions::new(old.name(), old.source());
    for (index, instruction) in all().enumerate() {
        let line = old.get_line(index as u32).and_then(|line| u16::try_from(line).ok()).unwrap_or(0);
        let instruction = match instruction {
            Instruction::EmitRaw(text) if text.len() > SHORT_TEXT => {
                new.add_with_line(Instruction::LoadConst(Value::from(*text)), line);
                Instruction::Emit
            }
            Instruction::Iterate(to) => Instruction::Iterate(place(*to)),
            Instruction::Jump(to) => Instruction::Jump(place(*to)),
            Instruction::JumpIfFalse(to) => Instruction::JumpIfFalse(place(*to)),
            Instruction::JumpIfFalseOrPop(to) => Instruction::JumpIfFalseOrPop(place(*to)),
            Instruction::JumpIfTrueOrPop(to) => Instruction::JumpIfTrueOrPop(place(*to)),
            Instruction::BuildMacro(name, to, flags) => Instruction::BuildMacro(name, place(*to), *flags),
            other => match operator(other) {
                Some((function, arguments)) => {
                    let count = u16::try_from(arguments).map_err(|_| {
                        data_loss(format!("the chat template has a list of {arguments} items, limit 65535"))
                    })?;
                    Instruction::CallFunction(function, Some(count))
                }
                None => other.clone(),
            },
        };
        new.add_with_line(instruction, line);
    }
    Ok(new)
}

/// The function that stands in for an instruction, and its number of arguments.
fn operator(instruction: &Instruction) -> Option<(&'static str, usize)> {
    Some(match instruction {
        Instruction::Add => ("operator +", 2),
        Instruction::Mul => ("operator *", 2),
        Instruction::StringConcat => ("operator ~", 2),
        Instruction::Slice => ("operator slice", 4),
        Instruction::In => ("operator in", 2),
        Instruction::Eq => ("operator ==", 2),
        Instruction::Ne => ("operator !=", 2),
        Instruction::Lt => ("operator <", 2),
        Instruction::Lte => ("operator <=", 2),
        Instruction::Gt => ("operator >", 2),
        Instruction::Gte => ("operator >=", 2),
        Instruction::BuildList(Some(n)) => ("operator []", *n),
        Instruction::BuildTuple(Some(n)) => ("operator ()", *n),
        Instruction::BuildMap(n) => ("operator {}", 2 * n),
        _ => return None,
    })
}
