// `npm run build`: bundles the pages into ../static, which Flask serves. Everything is in the bundle: no CDN.
import { cp, readFile } from "node:fs/promises";
import { build } from "esbuild";

const out = "../static";
const scripts = {
  outdir: out,
  bundle: true,
  minify: true,
  target: "es2022",
  legalComments: "none",
  logLevel: "warning",
};
await build({
  ...scripts,
  entryPoints: { jobs: "src/jobs/main.ts", admin: "src/admin/main.ts", theme: "src/shared/early_theme.ts" },
  format: "iife",
});
// A module, so that what draws formulas is loaded with the first one.
await build({
  ...scripts,
  entryPoints: { app: "src/chat/main.ts", shared: "src/chat/shared_main.ts", arena: "src/arena/main.ts" },
  format: "esm",
  splitting: true,
});

/** KaTeX offers each font in three formats; every browser that can run the page reads woff2. */
const woff2Only = {
  name: "woff2 only",
  setup({ onLoad }) {
    onLoad({ filter: /katex\.min\.css$/ }, async ({ path }) => {
      const css = await readFile(path, "utf8");
      return { contents: css.replace(/,url\([^)]+\.(?:woff|ttf)\) format\("[a-z]+"\)/g, ""), loader: "css" };
    });
  },
};
await build({
  entryPoints: {
    app: "styles/app.css",
    jobs: "styles/jobs.css",
    arena: "styles/arena.css",
    admin: "styles/admin.css",
    account: "styles/account.css",
  },
  outdir: out,
  bundle: true,
  minify: true,
  loader: { ".woff2": "file" },
  assetNames: "fonts/[name]-[hash]",
  plugins: [woff2Only],
  logLevel: "warning",
});
await cp("public", out, { recursive: true });
