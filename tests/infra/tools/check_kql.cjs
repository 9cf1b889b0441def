// Parses and type-checks KQL with Kusto's own language service, against the tables in
// ../data/log_tables.json. Usage: NODE_PATH=<node_modules> node check_kql.cjs < queries.json
// where queries.json is {"name": "query", ...}. Prints every error; exit code 1 if there is one.
const fs = require("fs");
const path = require("path");
require("@kusto/language-service-next/bridge.min.js");
require("@kusto/language-service-next/Kusto.Language.Bridge.min.js");

const { GlobalState, KustoCode, Symbols } = Kusto.Language;
const schema = JSON.parse(fs.readFileSync(path.join(__dirname, "../data/log_tables.json"), "utf8"));
const tables = Object.entries(schema).map(([name, columns]) => {
  const declared = Object.entries(columns).map(([column, type]) => `${column}: ${type}`);
  return new Symbols.TableSymbol.$ctor7(name, `(${declared.join(", ")})`, null);
});
const database = new Symbols.DatabaseSymbol.ctor("workspace", tables);
const globals = GlobalState.Default.WithDatabase(database);

const queries = JSON.parse(fs.readFileSync(0, "utf8"));
let errors = 0;
for (const name of Object.keys(queries)) {
  const diagnostics = KustoCode.ParseAndAnalyze(queries[name], globals).GetDiagnostics();
  for (let i = 0; i < diagnostics.Count; i += 1) {
    const diagnostic = diagnostics.getItem(i);
    if (diagnostic.Severity === "Error") {
      errors += 1;
      const near = queries[name].slice(diagnostic.Start, diagnostic.End);
      console.error(`${name}: ${diagnostic.Message} [${near}]`);
    }
  }
}
console.log(`${Object.keys(queries).length} queries, ${errors} errors`);
process.exit(errors === 0 ? 0 : 1);
