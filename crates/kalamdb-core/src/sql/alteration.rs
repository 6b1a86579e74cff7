//! ALTER TABLE: what its text asks for.

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use log_format::{Column, ColumnId, DataType};

use crate::error::{Error, Result};
use crate::sql::definition::{column, column_type};
use crate::sql::parse::{TableName, identifier, option_list, table_name};
use crate::sql::refusals;

/// What is written where there is none of it.
const EXPECTED: &str = "ALTER TABLE takes ADD COLUMN c type [NOT NULL] [DEFAULT x], DROP COLUMN c, RENAME COLUMN a TO b, \
                        MODIFY COLUMN c type, ALTER COLUMN c SET DEFAULT x, ALTER COLUMN c DROP DEFAULT and SET (option = value)";

/// ALTER TABLE, as written.
#[derive(Clone, Debug)]
pub(crate) struct Alteration {
    pub(crate) table: TableName,
    /// `ALTER TABLE IF EXISTS`.
    pub(crate) if_exists: bool,
    /// The kind of table it says it is.
    pub(crate) kind: Option<&'static str>,
    /// In the order in which they are written: each works on what those before it leave.
    pub(crate) changes: Vec<TableChange>,
}

/// One change of a table.
#[derive(Clone, Debug)]
pub(crate) enum TableChange {
    AddColumn {
        /// Its id is for the table to give.
        column: Column,
        if_not_exists: bool,
    },
    DropColumn {
        name: String,
        if_exists: bool,
    },
    RenameColumn {
        from: String,
        to: String,
    },
    ModifyColumn {
        name: String,
        data_type: DataType,
    },
    SetDefault {
        name: String,
        /// None: there is none any more.
        expression: Option<Box<Expr>>,
    },
    /// Options by name, in upper case.
    Set(Vec<(String, String)>),
}

impl Alteration {
    /// Reads what follows `ALTER [kind] TABLE`.
    pub(crate) fn parse(parser: &mut Parser<'_>, kind: Option<&'static str>) -> Result<Self> {
        let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let table = table_name(&parser.parse_object_name(false)?)?;
        let mut changes = vec![change(parser)?];
        while parser.consume_token(&Token::Comma) {
            changes.push(change(parser)?);
        }
        Ok(Self { table, if_exists, kind, changes })
    }
}

fn change(parser: &mut Parser<'_>) -> Result<TableChange> {
    let token = parser.next_token();
    let verb = match &token.token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_uppercase(),
        _ => String::new(),
    };
    let of_column = parser.parse_keyword(Keyword::COLUMN);
    if !of_column {
        refuse_of_other_databases(parser, &verb)?;
    }
    match verb.as_str() {
        "ADD" => add_column(parser),
        "DROP" => {
            let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            Ok(TableChange::DropColumn { name: identifier(&parser.parse_identifier()?), if_exists })
        }
        "RENAME" if !of_column && parser.peek_keyword(Keyword::TO) => Err(Error::Unsupported {
            what: "renaming a table".to_owned(),
            hint: Some("create another one and INSERT INTO it what SELECT * FROM this one gives"),
        }),
        "RENAME" => {
            let from = identifier(&parser.parse_identifier()?);
            parser.expect_keyword_is(Keyword::TO)?;
            Ok(TableChange::RenameColumn { from, to: identifier(&parser.parse_identifier()?) })
        }
        "MODIFY" => {
            let name = identifier(&parser.parse_identifier()?);
            modified(parser, name)
        }
        "ALTER" => {
            let name = identifier(&parser.parse_identifier()?);
            if parser.parse_keywords(&[Keyword::SET, Keyword::DEFAULT]) {
                let expression = Some(Box::new(parser.parse_expr()?));
                return Ok(TableChange::SetDefault { name, expression });
            }
            if parser.parse_keywords(&[Keyword::DROP, Keyword::DEFAULT]) {
                return Ok(TableChange::SetDefault { name, expression: None });
            }
            let _ = parser.parse_keywords(&[Keyword::SET, Keyword::DATA]);
            if !parser.parse_keyword(Keyword::TYPE) {
                return Err(Error::Unsupported {
                    what: format!("changing anything but the type and the default of {name}"),
                    hint: Some(
                        "write ALTER COLUMN c TYPE type, SET DEFAULT x or DROP DEFAULT, or add another column",
                    ),
                });
            }
            modified(parser, name)
        }
        "SET" if !of_column => Ok(TableChange::Set(option_list(parser)?)),
        _ => Err(Error::definition(EXPECTED)),
    }
}

/// Refuses changes that other databases have, and says what takes their place.
fn refuse_of_other_databases(parser: &Parser<'_>, verb: &str) -> Result<()> {
    let word = |at: usize| match parser.peek_nth_token(at).token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_uppercase(),
        other => other.to_string(),
    };
    let (first, second, third) = (word(0), word(1), word(2));
    let is_constraint = match first.as_str() {
        "CONSTRAINT" | "UNIQUE" | "FOREIGN" | "CHECK" | "EXCLUDE" => true,
        "PRIMARY" => second == "KEY",
        // A column may be called so.
        "INDEX" | "KEY" => {
            second == "("
                || third == "("
                    && !["DECIMAL", "NUMERIC", "VARCHAR", "CHAR", "EMBEDDING"].contains(&second.as_str())
        }
        _ => false,
    };
    let (what, hint) = match verb {
        "ADD" | "DROP" | "RENAME" | "ALTER" | "VALIDATE" if is_constraint => {
            (format!("{verb} {first}"), refusals::CONSTRAINTS)
        }
        "OWNER" => (
            "the owner of a table".to_owned(),
            "a USER table's rows are each user's own; others are the database's",
        ),
        "ENABLE" | "DISABLE" | "FORCE" => (
            format!("{verb} {first}"),
            "a USER table gives each user their own rows; a SHARED one has an ACCESS_LEVEL",
        ),
        "ATTACH" | "DETACH" | "PARTITION" | "INHERIT" | "CLUSTER" => (
            verb.to_owned(),
            "each user's rows are a partition of their own already, and files are sorted by the primary key",
        ),
        _ => return Ok(()),
    };
    Err(Error::Unsupported { what, hint: Some(hint) })
}

fn add_column(parser: &mut Parser<'_>) -> Result<TableChange> {
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    let definition = parser.parse_column_def()?;
    let (column, is_key) = column(ColumnId::new(0), &definition)?;
    if is_key {
        return Err(Error::Unsupported {
            what: format!("adding {} to the primary key", column.name),
            hint: Some("a table's key is that of its CREATE TABLE"),
        });
    }
    Ok(TableChange::AddColumn { column, if_not_exists })
}

/// The type a column is to have, and nothing more.
fn modified(parser: &mut Parser<'_>, name: String) -> Result<TableChange> {
    let data_type = column_type(&parser.parse_data_type()?)?;
    match parser.peek_token().token {
        Token::Comma | Token::SemiColon | Token::RParen | Token::EOF => {
            Ok(TableChange::ModifyColumn { name, data_type })
        }
        other => Err(Error::Unsupported {
            what: format!("{other} behind the new type of {name}"),
            hint: Some("only the type of a column can be changed"),
        }),
    }
}

/// The changes in canonical words, as the schema version keeps them.
pub(crate) fn words(changes: &[TableChange]) -> String {
    let words: Vec<String> = changes.iter().map(change_words).collect();
    words.join(", ")
}

fn change_words(change: &TableChange) -> String {
    use crate::sql::definition_text::{column_text, name_text, string_text};
    match change {
        TableChange::AddColumn { column, .. } => format!("ADD COLUMN {}", column_text(column)),
        TableChange::DropColumn { name, .. } => format!("DROP COLUMN {}", name_text(name)),
        TableChange::RenameColumn { from, to } => {
            format!("RENAME COLUMN {} TO {}", name_text(from), name_text(to))
        }
        TableChange::ModifyColumn { name, data_type } => {
            format!("MODIFY COLUMN {} {data_type}", name_text(name))
        }
        TableChange::SetDefault { name, expression: Some(expression) } => {
            format!("ALTER COLUMN {} SET DEFAULT {expression}", name_text(name))
        }
        TableChange::SetDefault { name, expression: None } => {
            format!("ALTER COLUMN {} DROP DEFAULT", name_text(name))
        }
        TableChange::Set(options) => {
            let options = options.iter().map(|(name, value)| format!("{name} = {}", string_text(value)));
            format!("SET ({})", options.collect::<Vec<_>>().join(", "))
        }
    }
}
