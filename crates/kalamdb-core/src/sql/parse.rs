//! Text to statements.

use datafusion::sql::sqlparser::ast::{self, Ident, ObjectName};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use kalamdb_query::dialect::SqlDialect;
use log_format::Role;

use crate::error::{Error, Result};
use crate::sql::alteration::Alteration;
use crate::sql::backup::{self, BackupStatement};
use crate::sql::ctes::{require_bounded, with_ctes};
use crate::sql::definition::TableDefinition;
use crate::sql::refusals;
use crate::sql::storage;
use crate::sql::tokens::tokens;
use crate::sql::user_changes::role_of;

/// Statements in one request at the most.
const STATEMENTS_MAX: usize = 1000;

/// A table as a statement names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableName {
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

/// One statement.
#[derive(Clone, Debug)]
pub(crate) enum Statement {
    /// Reads: SELECT, EXPLAIN, …
    Query(Box<ast::Statement>),
    Insert(Box<ast::Insert>),
    Update(Box<ast::Update>),
    Delete(Box<ast::Delete>),
    CreateNamespace {
        name: String,
        if_not_exists: bool,
        options: Vec<(String, String)>,
    },
    DropNamespace {
        name: String,
        if_exists: bool,
        cascade: bool,
    },
    AlterNamespace {
        name: String,
        options: Vec<(String, String)>,
    },
    CreateTable(Box<TableDefinition>),
    AlterTable(Box<Alteration>),
    DropTable {
        name: TableName,
        if_exists: bool,
        kind: Option<&'static str>,
    },
    CreateUser {
        name: String,
        if_not_exists: bool,
        password: String,
        role: Role,
    },
    AlterUser {
        name: String,
        change: UserChange,
    },
    DropUser {
        name: String,
        if_exists: bool,
    },
    ShowNamespaces,
    ShowTables {
        namespace: Option<String>,
    },
    Describe(TableName),
    ShowStats(TableName),
    Truncate(TableName),
    StorageFlush(TableName),
    /// STORAGE COMPACT TABLE.
    StorageCompact(TableName),
    DescribeHistory(TableName),
    ShowCreateTable(TableName),
    Use(String),
    Begin,
    Commit,
    Rollback,
    Subscribe(Box<ast::Statement>),
    KillLiveQuery(String),
    Backup(Box<BackupStatement>),
    ExecuteAsUser {
        user: String,
        statement: Box<Statement>,
    },
}

impl Statement {
    /// Whether it reads or changes rows, and does nothing else: a query, INSERT, UPDATE or DELETE.
    fn is_of_rows(&self) -> bool {
        match self {
            Self::Query(query) => matches!(query.as_ref(), ast::Statement::Query(_)),
            Self::Insert(_) | Self::Update(_) | Self::Delete(_) => true,
            _ => false,
        }
    }

    /// Whether it is a commit of its own, of the catalog. What only shows something is not.
    pub(crate) const fn changes_catalog(&self) -> bool {
        !matches!(
            self,
            Self::Query(_)
                | Self::Insert(_)
                | Self::Update(_)
                | Self::Delete(_)
                | Self::ShowNamespaces
                | Self::ShowTables { .. }
                | Self::Describe(_)
                | Self::ShowStats(_)
                | Self::DescribeHistory(_)
                | Self::ShowCreateTable(_)
                | Self::Use(_)
                | Self::Subscribe(_)
        )
    }
}

/// What ALTER USER changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UserChange {
    Password(String),
    Role(Role),
    Metadata(String),
}

impl From<ParserError> for Error {
    fn from(error: ParserError) -> Self {
        let message = match error {
            ParserError::ParserError(message) | ParserError::TokenizerError(message) => message,
            ParserError::RecursionLimitExceeded => {
                "the statement is nested too deeply; use fewer parentheses or subqueries".to_owned()
            }
        };
        Self::Syntax { message }
    }
}

/// The statements of a request.
pub(crate) fn parse(sql: &str) -> Result<Vec<Statement>> {
    parse_statements(sql).map_err(|mut error| {
        // The parser gives the end of the text no place.
        if let Error::Syntax { message } | Error::BatchSyntax { message } = &mut error
            && message.ends_with("EOF")
        {
            let text = sql.trim_end();
            let line = text.lines().count().max(1);
            let column = text.lines().last().map_or(0, |last| last.chars().count()) + 1;
            *message = format!("{message} at Line: {line}, Column: {column}");
        }
        error
    })
}

fn parse_statements(sql: &str) -> Result<Vec<Statement>> {
    let dialect = SqlDialect::of_text(sql);
    let tokens = tokens(&dialect, sql)?;
    let several = is_several(&tokens);
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
    let mut statements = Vec::new();
    loop {
        while parser.consume_token(&Token::SemiColon) {}
        if parser.peek_token().token == Token::EOF {
            break;
        }
        if statements.len() == STATEMENTS_MAX {
            return Err(Error::definition(format!(
                "a request takes {STATEMENTS_MAX} statements at the most"
            )));
        }
        statements.push(statement(&mut parser).map_err(|error| of_batch(error, several))?);
        if parser.peek_token().token != Token::EOF {
            parser.expect_token(&Token::SemiColon).map_err(|error| of_batch(error.into(), several))?;
        }
    }
    if statements.is_empty() {
        return Err(Error::EmptySql);
    }
    Ok(statements)
}

/// Whether something stands behind a semicolon.
fn is_several(tokens: &[TokenWithSpan]) -> bool {
    let is_nothing = |token: &Token| matches!(token, Token::SemiColon | Token::EOF | Token::Whitespace(_));
    let mut tokens = tokens.iter().map(|token| &token.token).skip_while(|token| is_nothing(token));
    tokens.any(|token| *token == Token::SemiColon) && tokens.any(|token| !is_nothing(token))
}

/// Where one of several statements is no SQL, none of them is run.
fn of_batch(error: Error, several: bool) -> Error {
    match error {
        Error::Syntax { message } if several => Error::BatchSyntax { message },
        other => other,
    }
}

/// The single SELECT of a subscription, with or without `SUBSCRIBE TO`.
pub(crate) fn parse_subscription(sql: &str) -> Result<ast::Statement> {
    let mut statements = parse(sql)?;
    match (statements.pop(), statements.is_empty()) {
        (Some(Statement::Query(select) | Statement::Subscribe(select)), true) => Ok(*select),
        _ => Err(Error::Unsupported {
            what: "a subscription to anything but one SELECT".to_owned(),
            hint: Some("write SELECT columns FROM one table [WHERE condition]"),
        }),
    }
}

/// The next words, upper case, as far as they are words.
fn words<const N: usize>(parser: &Parser<'_>) -> [String; N] {
    std::array::from_fn(|at| match parser.peek_nth_token(at).token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_uppercase(),
        _ => String::new(),
    })
}

fn skip(parser: &mut Parser<'_>, count: usize) {
    for _ in 0..count {
        parser.advance_token();
    }
}

fn statement(parser: &mut Parser<'_>) -> Result<Statement> {
    let [first, second, third] = words::<3>(parser);
    match (first.as_str(), second.as_str(), third.as_str()) {
        ("CREATE", "NAMESPACE", _) => create_namespace(parser),
        ("CREATE", "USER" | "SHARED" | "STREAM", "TABLE") => {
            skip(parser, 3);
            Ok(Statement::CreateTable(Box::new(TableDefinition::parse(parser, Some(&second))?)))
        }
        ("CREATE", "TABLE", _) => {
            skip(parser, 2);
            Ok(Statement::CreateTable(Box::new(TableDefinition::parse(parser, None)?)))
        }
        ("CREATE", "USER", _) => create_user(parser),
        ("ALTER", "NAMESPACE" | "TABLE", _) | ("ALTER", "USER" | "SHARED" | "STREAM", "TABLE") => {
            alter(parser, &second)
        }
        ("ALTER", "USER", _) => alter_user(parser),
        ("DROP", "NAMESPACE", _) => {
            skip(parser, 2);
            let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            let name = identifier(&parser.parse_identifier()?);
            let cascade = parser.parse_keyword(Keyword::CASCADE);
            Ok(Statement::DropNamespace { name, if_exists, cascade })
        }
        ("DROP", "USER" | "SHARED" | "STREAM", "TABLE") => {
            skip(parser, 3);
            drop_table(parser, Some(second.as_str()))
        }
        ("DROP", "TABLE", _) => {
            skip(parser, 2);
            drop_table(parser, None)
        }
        ("DROP", "USER", _) => {
            skip(parser, 2);
            let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            Ok(Statement::DropUser { name: name_or_string(parser)?, if_exists })
        }
        ("TABLE", ..) => {
            let parsed = ast::Statement::Query(parser.parse_query()?);
            refusals::refuse_ignored(&parsed)?;
            Ok(Statement::Query(Box::new(parsed)))
        }
        ("BACKUP" | "RESTORE", _, _) | ("SHOW", "BACKUP" | "BACKUPS", _) => {
            backup::parse(parser, [&first, &second])
        }
        _ => small_statement(parser, [&first, &second, &third]),
    }
}

fn small_statement(parser: &mut Parser<'_>, [first, second, third]: [&str; 3]) -> Result<Statement> {
    match (first, second, third) {
        ("SHOW", "NAMESPACES", _) => {
            skip(parser, 2);
            Ok(Statement::ShowNamespaces)
        }
        ("SHOW", "TABLES", _) => {
            skip(parser, 2);
            let given = parser.parse_one_of_keywords(&[Keyword::IN, Keyword::FROM]).is_some();
            let namespace = given.then(|| parser.parse_identifier()).transpose()?;
            Ok(Statement::ShowTables { namespace: namespace.as_ref().map(identifier) })
        }
        ("SHOW", "STATS", "FOR") => {
            skip(parser, 3);
            Ok(Statement::ShowStats(table_after_keyword(parser)?))
        }
        ("STORAGE", action, _) => {
            skip(parser, 2);
            storage::parse(parser, action)
        }
        ("TRUNCATE", _, _) => {
            skip(parser, 1);
            let table = table_after_keyword(parser)?;
            refuse_more_tables(parser, "TRUNCATE")?;
            Ok(Statement::Truncate(table))
        }
        ("SHOW", "CREATE", "TABLE") => {
            skip(parser, 3);
            Ok(Statement::ShowCreateTable(table_name(&parser.parse_object_name(false)?)?))
        }
        ("DESCRIBE" | "DESC", "TABLE", _) => {
            skip(parser, 2);
            describe(parser)
        }
        ("DESCRIBE" | "DESC", _, _) => {
            skip(parser, 1);
            describe(parser)
        }
        ("USE", _, _) => {
            skip(parser, 1);
            Ok(Statement::Use(identifier(&parser.parse_identifier()?)))
        }
        ("BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT", _, _) => transaction_end(parser, first),
        ("KILL", "LIVE", "QUERY") => {
            skip(parser, 3);
            Ok(Statement::KillLiveQuery(name_or_string(parser)?))
        }
        ("SUBSCRIBE", "TO", _) => {
            skip(parser, 2);
            Ok(Statement::Subscribe(Box::new(parsed_statement(parser)?)))
        }
        ("EXECUTE", "AS", "USER") => {
            skip(parser, 3);
            let user = name_or_string(parser)?;
            parser.expect_token(&Token::LParen)?;
            let inner = statement(parser)?;
            parser.expect_token(&Token::RParen)?;
            if !inner.is_of_rows() {
                return Err(refused_as_another_user());
            }
            Ok(Statement::ExecuteAsUser { user, statement: Box::new(inner) })
        }
        _ => {
            let [_, _, _, fourth] = words::<4>(parser);
            match refusals::refused([first, second, third, &fourth]) {
                Some(refused) => Err(refused),
                None => standard_statement(parser),
            }
        }
    }
}

/// The error of a statement that nobody may run for another user.
pub(super) fn refused_as_another_user() -> Error {
    Error::Unsupported {
        what: "anything but SELECT, INSERT, UPDATE and DELETE of tables inside of EXECUTE AS USER".to_owned(),
        hint: Some("run other statements as yourself, outside of it"),
    }
}

/// BEGIN, COMMIT and their like, which TRANSACTION or WORK may follow.
fn transaction_end(parser: &mut Parser<'_>, word: &str) -> Result<Statement> {
    skip(parser, 1);
    if word == "START" {
        parser.expect_keyword(Keyword::TRANSACTION)?;
    } else {
        let _ = parser.parse_one_of_keywords(&[Keyword::TRANSACTION, Keyword::WORK]);
    }
    Ok(match word {
        "BEGIN" | "START" => Statement::Begin,
        "COMMIT" | "END" => Statement::Commit,
        _ => Statement::Rollback,
    })
}

/// `[TABLE] name`.
pub(super) fn table_after_keyword(parser: &mut Parser<'_>) -> Result<TableName> {
    let _ = parser.parse_keyword(Keyword::TABLE);
    table_name(&parser.parse_object_name(false)?)
}

/// Refuses what other databases let follow a table's name: more tables, CASCADE and the like.
fn refuse_more_tables(parser: &Parser<'_>, statement: &str) -> Result<()> {
    let [word] = words::<1>(parser);
    let (what, hint) = match (&parser.peek_token().token, word.as_str()) {
        (Token::Comma, _) => {
            ("several tables", "write one statement for each table, with semicolons between them")
        }
        (_, "CASCADE" | "RESTRICT") => ("CASCADE or RESTRICT", "leave it out: no table depends on another"),
        (_, "RESTART" | "CONTINUE") => {
            ("RESTART or CONTINUE IDENTITY", "leave it out: there are no sequences")
        }
        (_, "PARTITION") => ("PARTITION", "use DELETE FROM t WHERE …"),
        _ => return Ok(()),
    };
    Err(Error::Unsupported { what: format!("{statement} of a table with {what}"), hint: Some(hint) })
}

/// A statement as `sqlparser` has it, without clauses that would be passed over.
fn parsed_statement(parser: &mut Parser<'_>) -> Result<ast::Statement> {
    let parsed = parser.parse_statement()?;
    require_bounded(&parsed)?;
    let parsed = with_ctes(parsed)?;
    refusals::refuse_ignored(&parsed)?;
    Ok(parsed)
}

/// What `sqlparser` knows.
fn standard_statement(parser: &mut Parser<'_>) -> Result<Statement> {
    let parsed = parsed_statement(parser)?;
    Ok(match parsed {
        ast::Statement::Insert(insert) => Statement::Insert(Box::new(insert)),
        ast::Statement::Update(update) => Statement::Update(Box::new(update)),
        ast::Statement::Delete(delete) => Statement::Delete(Box::new(delete)),
        ast::Statement::Query(_) | ast::Statement::Explain { .. } => Statement::Query(Box::new(parsed)),
        other => {
            let text = other.to_string();
            let head: Vec<&str> = text.split_whitespace().take(2).collect();
            return Err(Error::unsupported(head.join(" ")));
        }
    })
}

fn create_namespace(parser: &mut Parser<'_>) -> Result<Statement> {
    skip(parser, 2);
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    let name = identifier(&parser.parse_identifier()?);
    let mut options = Vec::new();
    if parser.parse_keyword(Keyword::WITH) {
        let _ = parser.parse_keyword(Keyword::OPTIONS);
        options = option_list(parser)?;
    }
    Ok(Statement::CreateNamespace { name, if_not_exists, options })
}

/// The name of a kind of table, by its keyword.
fn kind_name(keyword: &str) -> Option<&'static str> {
    match keyword {
        "USER" => Some("user"),
        "SHARED" => Some("shared"),
        "STREAM" => Some("stream"),
        _ => None,
    }
}

fn drop_table(parser: &mut Parser<'_>, kind: Option<&str>) -> Result<Statement> {
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let name = table_name(&parser.parse_object_name(false)?)?;
    refuse_more_tables(parser, "DROP TABLE")?;
    Ok(Statement::DropTable { name, if_exists, kind: kind.and_then(kind_name) })
}

/// `ALTER NAMESPACE n SET OPTIONS (…)`, `ALTER [kind] TABLE …`.
fn alter(parser: &mut Parser<'_>, what: &str) -> Result<Statement> {
    skip(parser, 2);
    if what == "NAMESPACE" {
        let name = identifier(&parser.parse_identifier()?);
        parser.expect_keyword_is(Keyword::SET)?;
        let _ = parser.parse_keyword(Keyword::OPTIONS);
        return Ok(Statement::AlterNamespace { name, options: option_list(parser)? });
    }
    let kind = kind_name(what);
    skip(parser, usize::from(kind.is_some()));
    Ok(Statement::AlterTable(Box::new(Alteration::parse(parser, kind)?)))
}

fn describe(parser: &mut Parser<'_>) -> Result<Statement> {
    let name = table_name(&parser.parse_object_name(false)?)?;
    let [history] = words::<1>(parser);
    if history == "HISTORY" {
        skip(parser, 1);
        return Ok(Statement::DescribeHistory(name));
    }
    Ok(Statement::Describe(name))
}

fn create_user(parser: &mut Parser<'_>) -> Result<Statement> {
    skip(parser, 2);
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    let name = name_or_string(parser)?;
    let (mut password, mut role) = (None, Role::User);
    loop {
        let [word, next] = words::<2>(parser);
        match (word.as_str(), next.as_str()) {
            ("WITH", "PASSWORD") => {
                skip(parser, 2);
                password = Some(parser.parse_literal_string()?);
            }
            ("PASSWORD", _) => {
                skip(parser, 1);
                password = Some(parser.parse_literal_string()?);
            }
            ("ROLE", _) => {
                skip(parser, 1);
                role = parse_role(parser)?;
            }
            _ => break,
        }
    }
    let password = password.ok_or_else(|| {
        Error::definition(format!(
            "CREATE USER needs a password: CREATE USER {name} WITH PASSWORD '…' ROLE user"
        ))
    })?;
    Ok(Statement::CreateUser { name, if_not_exists, password, role })
}

fn alter_user(parser: &mut Parser<'_>) -> Result<Statement> {
    skip(parser, 2);
    let name = name_or_string(parser)?;
    let [set, what] = words::<2>(parser);
    if set != "SET" {
        return Err(Error::definition("ALTER USER takes SET PASSWORD '…', SET ROLE … or SET METADATA '…'"));
    }
    skip(parser, 2);
    let change = match what.as_str() {
        "PASSWORD" => UserChange::Password(parser.parse_literal_string()?),
        "ROLE" => UserChange::Role(parse_role(parser)?),
        "METADATA" => UserChange::Metadata(parser.parse_literal_string()?),
        _ => return Err(Error::definition("ALTER USER SET takes PASSWORD, ROLE or METADATA")),
    };
    Ok(Statement::AlterUser { name, change })
}

fn parse_role(parser: &mut Parser<'_>) -> Result<Role> {
    let name = name_or_string(parser)?;
    role_of(&name)
}

/// `(name = value, …)`; names in upper case, values as text.
pub(crate) fn option_list(parser: &mut Parser<'_>) -> Result<Vec<(String, String)>> {
    let mut options = Vec::new();
    parser.expect_token(&Token::LParen)?;
    while !parser.consume_token(&Token::RParen) {
        let name = parser.parse_identifier()?.value.to_uppercase();
        parser.expect_token(&Token::Eq)?;
        options.push((name, option_value(parser)?));
        if !parser.consume_token(&Token::Comma) {
            parser.expect_token(&Token::RParen)?;
            break;
        }
    }
    Ok(options)
}

/// A string, a number or a word, as text.
pub(crate) fn option_value(parser: &mut Parser<'_>) -> Result<String> {
    let token = parser.next_token();
    match token.token {
        Token::SingleQuotedString(text) | Token::Number(text, _) => Ok(text),
        Token::Word(word) => Ok(word.value),
        other => {
            Err(Error::Syntax { message: format!("expected a value, found {other} at {}", token.span.start) })
        }
    }
}

/// A user's name: a string, or an identifier as it stands.
fn name_or_string(parser: &mut Parser<'_>) -> Result<String> {
    match parser.peek_token().token {
        Token::SingleQuotedString(text) => {
            parser.advance_token();
            Ok(text)
        }
        _ => Ok(identifier(&parser.parse_identifier()?)),
    }
}

/// An identifier as it is stored: lower case unless quoted.
pub(crate) fn identifier(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// A table's name, with or without its namespace.
pub(crate) fn table_name(name: &ObjectName) -> Result<TableName> {
    let parts: Option<Vec<String>> = name.0.iter().map(|part| part.as_ident().map(identifier)).collect();
    match parts.unwrap_or_default().as_slice() {
        [name] => Ok(TableName { namespace: None, name: name.clone() }),
        [namespace, name] => Ok(TableName { namespace: Some(namespace.clone()), name: name.clone() }),
        _ => Err(Error::definition(format!("{name} is no table name: write table or namespace.table"))),
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
