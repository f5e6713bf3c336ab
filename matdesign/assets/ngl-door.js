/* Opens the NGL library that travels inside the nglview package, without nglview.
 *
 * The package ships NGL as one chunk of a webpack bundle: a list of numbered modules. The
 * chunk is placed where CHUNK stands; this file gives its modules the little they need to
 * run and publishes the one that is NGL as window.NGL. */
(function () {
  "use strict";
  const NAME = "webpackChunknglview_js_widgets";
  const before = self[NAME];
  const chunks = (self[NAME] = []);
  (function () {
    /*CHUNK*/
  }).call(self);
  if (before === undefined) delete self[NAME];
  else self[NAME] = before;

  const modules = Object.assign({}, ...chunks.map((chunk) => chunk[1]));
  const made = {};
  function need(id) {
    if (made[id]) return made[id].exports;
    const module = (made[id] = { id, exports: {} });
    if (modules[id]) modules[id].call(module.exports, module, module.exports, need);
    else module.exports = { env: {} };                      // the stand-in for node's process
    return module.exports;
  }
  need.d = (target, parts) => {
    for (const key of Object.keys(parts)) {
      if (!(key in target)) Object.defineProperty(target, key, { enumerable: true, get: parts[key] });
    }
  };
  need.r = (target) => Object.defineProperty(target, "__esModule", { value: true });
  need.n = (module) => {
    const get = () => (module && module.__esModule ? module.default : module);
    get.a = get;
    return get;
  };
  need.o = (object, key) => Object.prototype.hasOwnProperty.call(object, key);
  need.nmd = (module) => Object.assign(module, { paths: [], children: [] });
  need.g = globalThis;
  for (const id of Object.keys(modules)) {
    const found = need(id);
    if (found && found.Stage && found.Shape) window.NGL = found;
  }
})();
