/* Draws the Gaussians of a page in WebGL; bundled with its libraries into viewer.js, see README.md. */
import { SparkRenderer, SplatMesh } from "@sparkjsdev/spark";
import * as THREE from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";

const UP = new THREE.Vector3(0, 0, 1);
const TURNS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const ZOOMS = { "+": 0.9, "-": 1 / 0.9 };
const STEP = Math.PI / 36;

/** Shows the bytes of an SPZ file in a square element, from a camera that the pointer and the keys move. */
window.showSplat = async (element, fileBytes, { position, target, fovy }) => {
  const renderer = new THREE.WebGLRenderer({ antialias: false });
  renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
  renderer.setClearColor(0xffffff, 1);
  element.replaceChildren(renderer.domElement);
  const scene = new THREE.Scene();
  const eye = new THREE.PerspectiveCamera(fovy, 1, 0.01, 1000);
  eye.up.copy(UP);
  eye.position.fromArray(position);
  const controls = new OrbitControls(eye, renderer.domElement);
  controls.target.fromArray(target);
  controls.update();

  let waiting = false;
  const draw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      renderer.render(scene, eye);
    });
  };
  scene.add(new SparkRenderer({ renderer, onDirty: draw }));
  const mesh = new SplatMesh({ fileBytes, fileType: "spz" });
  scene.add(mesh);

  controls.addEventListener("change", draw);
  element.addEventListener("keydown", (event) => {
    const [turn, zoom] = [TURNS[event.key], ZOOMS[event.key]];
    if (!turn && !zoom) return;
    event.preventDefault();
    const offset = eye.position.clone().sub(controls.target);
    if (zoom) offset.multiplyScalar(zoom);
    else {
      const side = new THREE.Vector3().crossVectors(offset, UP).normalize();
      offset.applyAxisAngle(UP, turn[0] * STEP).applyAxisAngle(side, turn[1] * STEP);
    }
    eye.position.copy(controls.target).add(offset);
    controls.update();
    draw();
  });
  new ResizeObserver(() => {
    renderer.setSize(element.clientWidth, element.clientWidth);
    draw();
  }).observe(element);
  await mesh.initialized;
  draw();
};
