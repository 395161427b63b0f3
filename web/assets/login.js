// @ts-check
// The login page works without this; it only says why one is back.
const error = document.getElementById("login-error");
if (error && new URLSearchParams(location.search).has("refused")) error.hidden = false;
document.getElementById("token")?.focus();
