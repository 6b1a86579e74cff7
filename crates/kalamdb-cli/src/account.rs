//! Which server, and who asks it: the options of commands that speak HTTP, and requests of whoever they name.
//!
//! A token that has expired is renewed once per request. What statements mean is for the commands.

use crate::client::{Client, ClientError, SqlAnswer, Statement, Token};

/// The options.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AccountArgs {
    /// Where the server listens
    #[arg(long, default_value = "http://127.0.0.1:2900")]
    pub(crate) url: String,
    /// Who to log in as
    #[arg(long, short, default_value = "root")]
    pub(crate) user: String,
    /// The password; other users of this machine can see it, so rather use --password-env or the variable `KALAMDB_PASSWORD`
    #[arg(long, conflicts_with = "password_env")]
    password: Option<String>,
    /// The environment variable that holds the password
    #[arg(long, value_name = "VARIABLE")]
    password_env: Option<String>,
}

impl AccountArgs {
    /// The password: as given, of the environment, or asked for where there is a terminal.
    pub(crate) fn password(&self) -> anyhow::Result<String> {
        crate::sql::password(&self.user, self.password.as_deref(), self.password_env.as_deref())
    }
}

/// Somebody who is logged in.
pub(crate) struct Account {
    client: Client,
    user: String,
    password: String,
    token: Token,
}

impl Account {
    /// Logs in.
    pub(crate) async fn log_in(args: &AccountArgs, password: String) -> Result<Self, ClientError> {
        let client = Client::new(&args.url, None)?;
        let token = client.login(&args.user, &password).await?;
        Ok(Self { client, user: args.user.clone(), password, token })
    }

    /// Runs a statement.
    pub(crate) async fn sql(&mut self, statement: Statement<'_>) -> Result<SqlAnswer, ClientError> {
        match self.client.sql(&self.token, statement).await {
            Err(error) if is_expired(&error) => {
                self.renew().await?;
                self.client.sql(&self.token, statement).await
            }
            other => other,
        }
    }

    /// The rows of a query as an Arrow IPC stream.
    pub(crate) async fn arrow(&mut self, statement: Statement<'_>) -> Result<Vec<u8>, ClientError> {
        match self.client.arrow(&self.token, statement).await {
            Err(error) if is_expired(&error) => {
                self.renew().await?;
                self.client.arrow(&self.token, statement).await
            }
            other => other,
        }
    }

    async fn renew(&mut self) -> Result<(), ClientError> {
        self.token = self.client.login(&self.user, &self.password).await?;
        Ok(())
    }
}

fn is_expired(error: &ClientError) -> bool {
    error.code() == Some("TOKEN_EXPIRED")
}
