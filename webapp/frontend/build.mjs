// `npm run build`: bundles the pages into ../static, which Flask serves. Everything is in the bundle: no CDN.
import { cp } from "node:fs/promises";
import { build } from "esbuild";

const out = "../static";
await build({
  entryPoints: { app: "src/chat/main.ts", jobs: "src/jobs/main.ts", theme: "src/shared/early_theme.ts" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  legalComments: "none",
  logLevel: "info",
});
await build({
  entryPoints: { app: "styles/app.css", jobs: "styles/jobs.css" },
  outdir: out,
  bundle: true,
  minify: true,
  logLevel: "info",
});
await cp("public", out, { recursive: true });
