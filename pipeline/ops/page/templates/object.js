"use strict";
/* Unpacks the Gaussians that the next script hands over, and shows them. */
async function splat({ gzip, camera }) {
  const element = document.getElementById("splat");
  try {
    const packed = Uint8Array.from(atob(gzip), (letter) => letter.charCodeAt(0));
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    await showSplat(element, new Uint8Array(await new Response(unpacked).arrayBuffer()), camera);
  } catch (error) {
    element.textContent = `This browser cannot draw the Gaussians: ${error.message}`;
  }
}
